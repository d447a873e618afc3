"""Dynamic sparse reparameterisation."""

from __future__ import annotations

from dataclasses import dataclass

from dimred.errors import require
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import magnitude
from dimred.select.allocate import regrown
from dimred.select.rewiring import drop, drop_and_regrow, require_fractions
from dimred.select.schedules import require_period
from dimred.training.loop import Train


@dataclass(frozen=True)
class DSR(RandomStart):
    """Every so often, drop all weights below one threshold and grow as many random ones, most where
    most are left.

        drop |theta| < H;  H <- H / 2 if that is more than 1.1 of the target, 2 H if less than 0.9 of it

    The target is a fraction of the trained weights (the paper gives numbers: 600 for LeNet-300-100,
    20000 for WRN-28-2). Every layer keeps its largest weight. New ones are drawn among all zeros;
    the official code leaves out those just dropped. The result's measure `threshold` is the last H.

    Trains: d weights, not always the same; stores: their positions; needs: nothing.

    Mostafa, Wang, ICML 2019 (arXiv:1902.05967).
    """

    every: int | float  # steps, or a fraction of training, at first
    slower: tuple[float, ...]  # moments at which `every` doubles, as fractions of training
    until: float  # the last time, as a fraction of training
    target: float  # to drop each time, as a fraction of the trained weights
    threshold: float  # H, at first

    def __post_init__(self) -> None:
        require_period(self.every)
        require(self.threshold > 0, "method.threshold", self.threshold, "a number above 0")
        require_fractions(until=self.until, target=self.target)
        require(
            all(0 <= m <= 1 for m in self.slower),
            "method.slower",
            self.slower,
            "fractions of training in [0, 1]",
        )

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        net.reported["threshold"] = float(self.threshold)
        due, period = train.every(self.every, self.until), train.period(self.every)
        for t in train.steps():
            slower = 2 ** sum(t >= moment * len(train) for moment in self.slower)
            if due(t) and t % (period * slower) == 0 and net.dim < net.total:
                threshold = net.reported["threshold"]
                counts = below(net, threshold)
                left = {name: net.weights[name].dim - count for name, count in counts.items()}
                share = sum(counts.values()) / (self.target * net.dim)
                if share > 1.1:
                    net.reported["threshold"] = threshold / 2
                elif share < 0.9:
                    net.reported["threshold"] = threshold * 2
                more = regrown(net, left, left)
                drop_and_regrow(net, drop(net, magnitude(net), counts), more)


def below(net: Net, threshold: float) -> dict[str, int]:
    """How many trained weights of each layer are smaller than the threshold; all but one, at
    most."""
    return {
        name: max(0, min(int((w.psi.abs() < threshold).sum()), w.dim - 1))
        for name, w in net.weights.items()
    }
