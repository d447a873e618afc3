"""Dynamic sparse reparameterisation."""

from __future__ import annotations

from dataclasses import dataclass

from dimred.fields import Fraction, Period, Positive
from dimred.methods.random_start import RandomStart
from dimred.net import Net
from dimred.scores import magnitude
from dimred.select.allocations import regrown
from dimred.select.rewiring import drop, drop_and_regrow
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class DSR(RandomStart):
    """Dynamic sparse reparameterisation: drop all weights below a global threshold and grow as many
    at random; layers with more remaining weights grow more.

        drop |theta| < H;  H <- H / 2 if more than 1.1 of the target was dropped,
        2 H if less than 0.9 of it

    The target is a fraction of the trained weights (the paper gives numbers: 600 for LeNet-300-100,
    20000 for WRN-28-2). Every layer keeps at least its largest weight. New weights are drawn among
    all untrained positions; the official code excludes those just dropped. The result's measure
    `threshold` is the last H.

    Trains: d weights, not always the same; stores: their positions; needs: nothing.

    Mostafa, Wang, ICML 2019 (arXiv:1902.05967).
    """

    update_every: Period = 0.01  # initial period: steps, or a fraction of training
    # fractions of training at which update_every doubles
    double_period_at: tuple[Fraction, ...] = (0.125, 0.4, 0.7)
    update_until: Fraction = 0.95  # last update, as a fraction of training
    drop_fraction: Fraction = 0.1  # target, as a fraction of the trained weights
    initial_threshold: Positive = 0.001  # the initial H

    def run(self, net: Net, train: Train) -> None:
        self.keep_random(net)
        net.reported["threshold"] = float(self.initial_threshold)
        due, period = (
            train.every(self.update_every, self.update_until),
            train.period(self.update_every),
        )
        for t in train.steps():
            slower = 2 ** sum(t >= moment * len(train) for moment in self.double_period_at)
            if due(t) and t % (period * slower) == 0 and net.dim < net.total:
                threshold = net.reported["threshold"]
                counts = below(net, threshold)
                left = {name: net.weights[name].dim - count for name, count in counts.items()}
                # the new threshold is for the next update; this one drops what the old threshold
                # has counted
                share = sum(counts.values()) / (self.drop_fraction * net.dim)
                if share > 1.1:
                    net.reported["threshold"] = threshold / 2
                elif share < 0.9:
                    net.reported["threshold"] = threshold * 2
                # in proportion to the remaining weights, so layers that drop few weights gain some
                more = regrown(net, left, left)
                drop_and_regrow(net, drop(net, magnitude(net), counts), more)


def below(net: Net, threshold: float) -> dict[str, int]:
    """The number of trained weights in each layer below the threshold; at most all but one."""
    return {
        name: max(0, min(int((w.psi.abs() < threshold).sum()), w.dim - 1))
        for name, w in net.weights.items()
    }
