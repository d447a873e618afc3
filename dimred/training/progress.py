"""The progress of a run: a bar in a terminal; lines in log.txt, and on stderr without a
terminal."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from dimred.training import sweep_label
from dimred.training.sweep_label import PROGRESS, run_label

log = logging.getLogger(PROGRESS)
T = TypeVar("T")

# the most epochs of a training that are all logged; of longer ones every second, third, ... is
MOST_LINES = 1000
PATIENCE = 2.0  # seconds until rounds without training get a bar
SILENCE = 30.0  # seconds between the lines of rounds without training
TRAINING = "{desc} |{bar}|{percentage:3.0f}% {remaining} left"
SCORING = "{desc} {n_fmt} of {total_fmt} |{bar}| {remaining} left"


class Progress:
    """Shows the rounds, the epoch and the accuracy of one run.

    total: the steps of one training; epoch_steps: the steps of an epoch
    """

    def __init__(self, total: int, epoch_steps: int) -> None:
        self.epoch_steps, self.epochs = epoch_steps, math.ceil(total / epoch_steps)
        self._total, self._step = total, 0  # the present step of the present training
        self._every = math.ceil(self.epochs / MOST_LINES)
        self._rounds: list[str] = []  # outermost first
        self._numbers: list[tuple[int, int]] = []  # of these: which round, of how many
        self._bar: tqdm  # of the present training phase
        self._trained = 0  # evaluations so far
        self._last: Mapping[str, Any] = {}  # the last evaluation

    # -- rounds --------------------
    def rounds(self, items: Collection[T], what: str) -> Iterator[T]:
        """Yield the items. A round that trains is logged when it ends. Rounds that do not train,
        such as those of scoring, get a bar after PATIENCE seconds."""
        began = _Clock()
        bar: tqdm | None = None
        for i, item in enumerate(items):
            round_began, trained = _Clock(), self._trained
            with self._round(what, i, len(items)):
                yield item
                if self._trained > trained:
                    self._log(f"done in {round_began.seconds():.1f} s{self._reached()}")
                elif began.due(SILENCE if i + 1 < len(items) else PATIENCE):
                    self._log(f"{began.seconds():.1f} s")
            if self._trained == trained and bar is None and began.seconds() > PATIENCE:
                bar = _bar(len(items), initial=i, desc=self._name(what), bar_format=SCORING)
            if bar is not None:
                bar.update()
        if bar is not None:
            bar.close()

    @contextmanager
    def _round(self, what: str, i: int, count: int) -> Iterator[None]:
        self._rounds.append(f"{what} {i + 1} of {count}")
        self._numbers.append((i, count))
        try:
            yield
        finally:
            self._rounds.pop()
            self._numbers.pop()

    def position(self) -> dict[str, Any]:
        """Where the run is, in words, and the fraction that is done: of its training, or of its
        rounds. Other threads ask, too."""
        fraction = self._step / self._total
        for i, count in reversed(self._numbers):
            fraction = (i + fraction) / count
        return {
            "doing": ", ".join([*self._rounds, self._epoch(self._step)]),
            "fraction": fraction,
        }

    # -- steps --------------------
    @contextmanager
    def steps(self, start: int, stop: int, now: int) -> Iterator[None]:
        """Show a bar for the steps of a training phase, of which `now - start` are done."""
        self._step = now
        with _bar(stop - start, initial=now - start, bar_format=TRAINING) as self._bar:
            self.at(now)
            yield

    def step(self) -> None:
        """Advance the bar by a step."""
        self._step += 1
        self._bar.update()

    def at(self, step: int, accuracy: float | None = None) -> None:
        """Show the epoch of a step, and the accuracy on training batches."""
        if not self._bar.disable:
            self._bar.set_description_str(self._name(self._epoch(step), _percent(accuracy)))

    def evaluated(self, line: Mapping[str, Any], ended: bool) -> None:
        """Log the metrics of an epoch or (`ended`) of the end of training."""
        self._trained, self._last = self._trained + 1, line
        step = line["step"]
        if ended or step // self.epoch_steps % self._every == 0:
            validation = ""
            if "val_accuracy" in line:
                validation = f", validation {_percent(line['val_accuracy'])}"
            if "ema_val_accuracy" in line:
                validation += f" (averaged weights {_percent(line['ema_val_accuracy'])})"
            self._log(
                f"{self._epoch(step - 1)}, step {step}: loss {line['train_loss']:.4f}, "
                f"accuracy {_percent(line['train_accuracy'])}{validation}"
            )

    # -- messages --------------------
    def _epoch(self, step: int) -> str:
        return f"epoch {min(step // self.epoch_steps + 1, self.epochs)} of {self.epochs}"

    def _reached(self) -> str:
        found = self._last.get("val_accuracy", self._last["train_accuracy"])
        of = "validation" if "val_accuracy" in self._last else "training"
        return f", {of} accuracy {_percent(found)}, {self._last['dim']} weights trained"

    def _name(self, *parts: str) -> str:
        return ", ".join(part for part in (run_label(), *self._rounds, *parts) if part)

    def _log(self, message: str) -> None:
        log.info("%s", ": ".join([", ".join(self._rounds), message] if self._rounds else [message]))


class _Clock:
    """Measures seconds since its creation."""

    def __init__(self) -> None:
        self._start = self._rang = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def due(self, seconds: float) -> bool:
        """Whether this many seconds have passed since its creation, or since this was last true."""
        now = time.monotonic()
        if now - self._rang < seconds:
            return False
        self._rang = now
        return True


def _bar(total: int, **options: Any) -> tqdm:
    """A bar that disappears when it is done; a disabled one if stderr is no terminal, or if other
    runs write to it as well."""
    disable = log.disabled or not sweep_label.own_screen or not sys.stderr.isatty()
    return tqdm(total=total, leave=False, dynamic_ncols=True, disable=disable, **options)


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.1f} %"
