"""The interface of methods."""

from __future__ import annotations

from typing import Protocol

from dimred.net import Net
from dimred.training.loop import Train


class Method(Protocol):
    """A frozen dataclass with a `run`. Its fields are its hyper-parameters, and
    conf/method/NAME.yaml gives them their values."""

    def run(self, net: Net, train: Train) -> None:
        """Choose coordinates and train them, in whatever order the paper says.

        A resumed run calls `run` again (training/resume.py). So what a method remembers between
        steps is in `net.method_state`, as named tensors, and what it reports in `net.reported`, not
        in a local variable."""
        ...
