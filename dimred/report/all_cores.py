"""Work of this process on all cores: for pages and tables of thousands of runs."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Found = TypeVar("Found")

#: what forked processes inherit: the work, and its items
_given: tuple[Callable[[Any], Any], Sequence[Any]] | None = None


def on_all_cores(work: Callable[[T], Found], items: Sequence[T]) -> list[Found]:
    """What the work returns for each item. Forked processes share it out, so work and items may be
    anything; where forking is not safe (macOS) or useless, this process does all."""
    global _given
    processes = min(len(items), len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1)
    if processes < 2:
        return [work(item) for item in items]
    _given = work, items
    with warnings.catch_warnings():
        # of forking beside threads: those of BLAS hold nothing that the work needs
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pool = multiprocessing.get_context("fork").Pool(processes)
    try:
        with pool:
            return pool.map(_work_on, range(len(items)), chunksize=1 + len(items) // 100)
    finally:
        _given = None


def _work_on(number: int) -> Any:
    assert _given
    work, items = _given
    return work(items[number])
