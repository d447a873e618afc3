"""The request to end a run, which a signal makes (runs/signals.py)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Stop:
    """signal: the number of the signal that came, or 0. in_steps: whether the run goes on to the
    end of a step, after which it is saved and ends."""

    def __init__(self) -> None:
        self.signal, self.in_steps = 0, False

    @contextmanager
    def after_a_step(self) -> Iterator[None]:
        """Within the block, the run ends after a step."""
        self.in_steps = True
        try:
            yield
        finally:
            self.in_steps = False
