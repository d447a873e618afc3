"""Work that forked processes share out."""

import os

import pytest

from dimred.report.all_cores import on_all_cores


def test_work_is_done_once_for_each_item_in_their_order() -> None:
    offset = [1000]  # what processes inherit, as no pickle could pass a function like this one
    assert on_all_cores(lambda n: n + offset[0], range(250)) == [*range(1000, 1250)]


def test_several_processes_do_it() -> None:
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this machine has one core, or cannot fork safely")
    found = on_all_cores(lambda _: os.getpid(), range(200))
    assert os.getpid() not in found


def test_an_error_in_a_process_is_raised_here() -> None:
    def fail(n: int) -> int:
        raise ValueError(f"item {n}")

    with pytest.raises(ValueError, match="item"):
        on_all_cores(fail, [1, 2])
