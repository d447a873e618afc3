"""Movement pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor

from dimred.fields import (
    Checked,
    NotNegative,
    OpenFraction,
    Period,
    Positive,
    Sparsity,
    UnitInterval,
    within,
)
from dimred.methods.learned_sparsity.base import LearnedSparsity
from dimred.net import Net
from dimred.net.transforms import ScoredMask
from dimred.select.allocations import Allocation, Uniform
from dimred.select.schedules import cubic, require_period
from dimred.select.topk import topk
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class Movement(Checked):
    """Movement pruning: keep the weights that move away from zero, by scores trained with a
    straight-through estimator.

        E(psi) = psi * m,  m = 1 at the largest S of each layer;
        dL/dS := dL/dE * psi,  so S = -lr sum dL/dE * psi

    The density falls as in gradual magnitude pruning from prune_from to prune_until, and then stays
    constant. Scores and weights train until the end. The method is made for fine-tuning pretrained
    networks.

    Trains: all weights and a score for each, in the end d weights; stores: their positions; needs:
    dense weights, scores and their gradients in every step.

    Sanh, Wolf, Rush, NeurIPS 2020 (arXiv:2005.07683).
    """

    sparsity: Sparsity = 0.9
    allocation: Allocation = Uniform()
    prune_from: UnitInterval = 0.1  # start of pruning, as a fraction of training
    prune_until: OpenFraction = 0.7
    update_every: Period = 1  # steps, or a fraction of training
    score_lr_scale: Positive = 1.0  # score learning rate / recipe.lr

    def __post_init__(self) -> None:
        super().__post_init__()
        require_period(self.prune_from, self.prune_until)

    def run(self, net: Net, train: Train) -> None:
        gates = {name: ScoredMask(w.param) for name, w in net.weights.items()}
        net.add_transforms(gates, lr=self.score_lr_scale, decay=0.0)
        total = len(train)
        begin, end = int(self.prune_from * total), int(self.prune_until * total)
        period = train.period(self.update_every)
        for t in train.steps():
            # also in the last step, whatever the period, so that the final density is reached
            if t >= begin and (t % period == 0 or t == total - 1):
                density = cubic(
                    self.sparsity, min(1.0, (t - begin) / (end - begin)) if end > begin else 1.0
                )
                for name, support in topk(scores_of(gates), self.allocation(net, density)).items():
                    gates[name].keep(support)
        net.keep({name: gate.support() for name, gate in gates.items()}, merge=True)


@dataclass(frozen=True, kw_only=True)
class SoftMovement(LearnedSparsity):
    """Soft movement pruning: prune by a threshold on the scores, and learn the number of weights to
    keep, with a penalty on it.

        E(psi) = psi * [sigmoid(S) > tau];  loss + penalty * sum sigmoid(S);
        dL/dS := dL/dE * psi;  margin S

    tau and the penalty rise together from 0 until the soft phase ends, on the cubic schedule of
    gradual pruning. The penalty controls the sparsity. The penalty is a sum over all scores, as in
    the paper; the official code averages within layers.

    Trains: all weights and a score for each, after the soft phase d weights; stores: their
    positions; needs: dense weights, scores and their gradients in the soft phase.

    Sanh, Wolf, Rush, NeurIPS 2020 (arXiv:2005.07683).
    """

    threshold: Annotated[float, within("[0, 0.5)")] = 0.1
    penalty: NotNegative = 0.08
    score_lr_scale: Positive = 1000.0  # score learning rate / recipe.lr

    strength: ClassVar[str] = "penalty"

    def run(self, net: Net, train: Train) -> None:
        strength = self.per_step(train, self.penalty)
        gates = {
            name: SigmoidGate(w.param, self.threshold, strength) for name, w in net.weights.items()
        }
        net.add_transforms(gates, lr=self.score_lr_scale, decay=0.0)
        stop = self.stop(train)
        for t in train.steps(0, stop):
            for gate in gates.values():
                # 1 - (1 - x)^3: the cubic schedule, as a fraction of its final value
                gate.rise.fill_(1 - cubic(1.0, (t + 1) / stop))
        self.prune_and_finetune(net, train, scores_of(gates))


class SigmoidGate(ScoredMask):
    """Open where sigmoid(score) exceeds the threshold. `rise` goes from 0 to 1 and scales tau and
    the penalty."""

    rise: Tensor

    def __init__(self, weight: Tensor, tau: float, strength: float) -> None:
        super().__init__(weight)
        self.tau, self.strength = tau, strength
        self.register_buffer("rise", weight.new_zeros(()))

    def forward(self, theta: Tensor) -> Tensor:
        self.kept = self.score.detach().sigmoid() > self.rise * self.tau
        return super().forward(theta)

    def penalty(self, theta: Tensor) -> Tensor:
        return self.rise * self.strength * self.score.sigmoid().sum()


def scores_of(gates: Mapping[str, ScoredMask]) -> dict[str, Tensor]:
    return {name: gate.score.detach() for name, gate in gates.items()}
