"""Gradual pruning: from a dense to a sparse network during training."""

from __future__ import annotations

from dataclasses import dataclass

from dimred.errors import require
from dimred.fields import Checked, OpenFraction, Period, Sparsity, UnitInterval
from dimred.net import Net
from dimred.net.transforms import StraightThroughMask
from dimred.scores import magnitude, trained_only
from dimred.select.allocations import Allocation, Global, Uniform
from dimred.select.schedules import cubic, require_period, steps_between
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class GMP(Checked):
    """Gradual magnitude pruning: prune the weights of smallest magnitude during training, on a
    cubic schedule.

        s_t = s (1 - (1 - (t - t0) / (t1 - t0))^3)  for t = t0, t0 + k, ..., t1

    By default all layers have the same sparsity, as in the paper; allocation=global ranks all
    layers together.

    Trains: all weights at first, in the end d; stores: their positions; needs: dense weights and
    gradients until it prunes.

    Zhu, Gupta, ICLR workshop 2018 (arXiv:1710.01878), eq. 1.
    """

    sparsity: Sparsity = 0.9
    allocation: Allocation = Uniform()
    prune_from: UnitInterval = 0.0  # t0 and t1, as fractions of training
    prune_until: OpenFraction = 0.5
    update_every: Period = 0.01  # steps, or a fraction of training

    def __post_init__(self) -> None:
        super().__post_init__()
        require_period(self.prune_from, self.prune_until)

    def density(self, t: int, total: int) -> float | None:
        """The density to prune to at step t of `total`; None if this step does not prune."""
        begin, end = int(self.prune_from * total), int(self.prune_until * total)
        period = steps_between(self.update_every, total)
        if begin <= t <= end and ((t - begin) % period == 0 or t == end):
            return cubic(self.sparsity, (t - begin) / (end - begin) if end > begin else 1.0)
        return None

    def run(self, net: Net, train: Train) -> None:
        for t in train.steps():
            density = self.density(t, len(train))
            if density is not None:
                net.keep(topk(magnitude(net), self.allocation(net, density)))


@dataclass(frozen=True, kw_only=True)
class DPF(GMP):
    """Dynamic pruning with feedback: compute with the weights of largest magnitude and update all
    weights by their gradient, so that pruned weights may return.

        psi <- psi - lr dL/dtheta (theta),  theta = psi * (|psi| among the largest),
        the mask is updated every update_every steps

    The density falls as in GMP and then stays constant; the mask continues to change. Momentum and
    weight decay act on all of psi. Memory and time are those of dense training.

    Trains: all weights, d in use; stores: their positions; needs: dense weights and gradients in
    every step.

    Lin, Stich, Barba, Dmitriev, Jaggi, ICLR 2020 (arXiv:2006.07253).
    """

    allocation: Allocation = Global()
    prune_until: OpenFraction = 0.75
    update_every: Period = 16

    def density(self, t: int, total: int) -> float | None:
        begin, period = int(self.prune_from * total), steps_between(self.update_every, total)
        # after the schedule of GMP the mask is still updated, at the final density
        late = t > self.prune_until * total and (t - begin) % period == 0
        return 1 - self.sparsity if late else super().density(t, total)

    def run(self, net: Net, train: Train) -> None:
        masks = {name: StraightThroughMask(w.param) for name, w in net.weights.items()}
        net.add_transforms(masks)
        for t in train.steps():
            density = self.density(t, len(train))
            if density is not None:
                for name, support in topk(magnitude(net), self.allocation(net, density)).items():
                    masks[name].keep(support)
        net.keep({name: mask.support() for name, mask in masks.items()}, merge=True)


@dataclass(frozen=True, kw_only=True)
class WeightMom(GMP):
    """Gradual pruning by a moving average of weight magnitudes.

        v_t = m v_{t-1} + (1 - m) |theta_t|,  m = momentum,  v_0 = |theta_0|;
        prune the smallest v on GMP's schedule

    This rule is ours. The paper prunes by the momentum of weights over previous iterations, with a
    share for each layer by its importance, but its formulas were not at hand. Here one ranking
    covers all layers, unless the allocation gives each layer a density. With momentum=0 it is GMP.

    Trains: all weights at first, in the end d; stores: their positions; needs: dense weights and
    gradients until it prunes, and an average of their magnitudes.

    After Johnson, Tang, Samudrala, 2022 (arXiv:2208.05970; authors from memory); the rule is ours.
    """

    allocation: Allocation = Global()
    momentum: UnitInterval = 0.9

    def run(self, net: Net, train: Train) -> None:
        net.method_state = {name: theta.abs() for name, theta in net.dense_weights().items()}
        for t in train.steps():
            for name, theta in net.dense_weights().items():
                # pruned weights are zero, so their average decays as well
                average = net.method_state[name]
                average.mul_(self.momentum).add_(theta.abs(), alpha=1 - self.momentum)
            density = self.density(t, len(train))
            if density is not None:
                # a pruned weight may still have a large average, and must not return
                scores = trained_only(net, dict(net.method_state))
                net.keep(topk(scores, self.allocation(net, density)))


@dataclass(frozen=True, kw_only=True)
class ACDC(Checked):
    """Alternating compressed/decompressed training: alternate between sparse and dense phases, and
    end with a sparse one.

        compress: keep the weights of largest magnitude and train them;
        decompress: train all weights; pruned weights start from zero

    Decompression clears the optimiser's state. The default phases are those of 200 epochs of CIFAR,
    as fractions of training.

    Trains: all weights and d of them by turns; stores: their positions; needs: dense weights and
    gradients in the dense phases.

    Peste, Iofinova, Vladu, Alistarh, NeurIPS 2021 (arXiv:2106.12379), alg. 1.
    """

    sparsity: Sparsity = 0.9
    allocation: Allocation = Global()
    # starts of the phases, as fractions of training
    compress_at: tuple[UnitInterval, ...] = (0.05, 0.25, 0.45, 0.65, 0.85)
    decompress_at: tuple[UnitInterval, ...] = (0.15, 0.35, 0.55, 0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        alternating = [name for _, name in self.phases()]
        require(
            alternating == ["compress", "decompress"] * len(self.decompress_at) + ["compress"],
            "method.compress_at, method.decompress_at",
            (self.compress_at, self.decompress_at),
            "fractions of training that alternate, first and last to compress",
        )

    def phases(self) -> list[tuple[float, str]]:
        return sorted(
            [(m, "compress") for m in self.compress_at]
            + [(m, "decompress") for m in self.decompress_at]
        )

    def run(self, net: Net, train: Train) -> None:
        start = 0
        for moment, name in self.phases():
            begin, start = start, round(moment * len(train))
            train(begin, start)
            if name == "compress":
                net.keep(topk(magnitude(net), self.allocation(net, 1 - self.sparsity)))
            else:
                # all supports are None, the whole weight: pruned entries train again, from zero
                net.keep(dict.fromkeys(net.weights))
                # as in the official code: momentum of the sparse phase is not that of the dense
                # network
                net.optimizer_state.clear()
        train(start)
