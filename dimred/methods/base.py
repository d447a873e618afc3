"""The interface of methods."""

from __future__ import annotations

from typing import Protocol

from dimred.net import Net
from dimred.training.loop import Train


class Method(Protocol):
    """A frozen dataclass with a `run`. Its fields are its hyper-parameters, and
    conf/method/NAME.yaml lists their values."""

    def run(self, net: Net, train: Train) -> None:
        """Choose coordinates and train them, in the order that the paper prescribes.

        A resumed run calls `run` again (training/resume.py). Local variables are lost then: a
        method keeps tensors that it needs from one step to the next in `net.method_state`, and
        numbers that it reports in `net.reported`."""
        ...
