"""What a packed sweep prints: a line for each finished run, and in a terminal a bar."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

from tqdm import tqdm

from dimred.runs.packed.worker import Outcome, Task
from dimred.runs.printing import percent
from dimred.runs.terminal import printable

BAR = "{n_fmt} of {total_fmt} runs |{bar}| {remaining} left"


class Display:
    def __init__(self, runs: int) -> None:
        self.bar = tqdm(
            total=runs,
            leave=False,
            dynamic_ncols=True,
            bar_format=BAR,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def show(self, task: Task, outcome: Outcome) -> None:
        """Of a run that failed, the error says why already."""
        if outcome["status"] == "done":
            with tqdm.external_write_mode(sys.stdout):
                print(line(task, outcome), flush=True)
        self.bar.update()


def line(task: Task, outcome: Outcome) -> str:
    """run 3 of 8 (method=rigl seed=1): test accuracy 95.20 %, 3.4 s"""
    accuracy, seconds = percent(outcome["test_accuracy"]), outcome["seconds"]
    about = f"{task.label} ({printable(task.values)})"
    return f"{about}: test accuracy {accuracy}, {seconds:.1f} s"


def level_of_screen() -> int:
    """Of several runs at once, a screen shows warnings and errors; with --debug, all."""
    levels = [handler.level for handler in logging.getLogger("dimred").handlers]
    return logging.DEBUG if logging.DEBUG in levels else logging.WARNING
