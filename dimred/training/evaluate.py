"""Loss and accuracy: on a split, on the batches of training steps, and at the best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dimred.data.base import Source
from dimred.errors import UserError
from dimred.net import Net
from dimred.net.part import Part, part_of
from dimred.training.ranks import ALONE, Ranks
from dimred.training.recipe import Recipe

# Steps between two transfers of losses from the device: training waits for it only then.
READ_EVERY = 50
SHOWN = 5  # the last losses, shown in an error message


def evaluate(
    net: Net,
    data: Source,
    recipe: Recipe,
    split: str,
    part: Part | None = None,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """Mean loss and accuracy (a fraction) on "train", "val" or "test". Every example counts once.

    part: what of the model is computed on these data, if not all of it.
    ranks: the processes that each compute a share of the examples."""
    device = next(net.model.parameters()).device
    # summed on the device, so that evaluation waits for it once
    sums = torch.zeros(2, device=device, dtype=torch.float64)
    thetas = part.thetas(net) if part else None
    net.train(False)
    with torch.no_grad(), net.weights_in_place(thetas, recipe.channels_last) as model:
        compute = part_of(model, part)
        for images, labels in data.eval_shares(ranks.share, split):
            logits = recipe.logits(compute, images)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack((loss, (logits.argmax(1) == labels).sum()))
    net.train()
    ranks.sum([sums])
    loss_sum, correct = sums.tolist()
    return loss_sum / data.sizes[split], correct / data.sizes[split]


class RunningLoss:
    """Mean loss and accuracy on the batches of all steps since the last evaluation.

    Losses stay on the device until `read`, which is due when READ_EVERY of them are stored
    (`full`)."""

    def __init__(
        self, recipe: Recipe, total: int, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self._recipe, self._total, self._ranks, self.device = recipe, total, ranks, device
        # the loss and the number of right answers of each step, and the row of the next step; a
        # number on the device, since the step may be captured
        self._losses = torch.zeros(READ_EVERY, device=device)
        self._correct = torch.zeros(READ_EVERY, dtype=torch.int64, device=device)
        self._row = torch.zeros(1, dtype=torch.int64, device=device)
        self._unread = 0  # the number of losses on the device that have not been read
        self._sums: list[float] = [0.0, 0.0, 0]  # loss, correct and steps since the evaluation
        self._recent: list[float] = []  # the last losses read

    @property
    def full(self) -> bool:
        return self._unread == READ_EVERY

    @torch.no_grad()
    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add the loss and the accuracy of a step, on the device. Where labels are probabilities,
        the most probable class is the right one."""
        if labels.dim() == 2:
            labels = labels.argmax(1)
        correct = (logits.argmax(1) == labels).sum()
        self._losses.index_copy_(0, self._row, loss.detach().to(self._losses).view(1))
        self._correct.index_copy_(0, self._row, correct.view(1))
        self._row += 1

    def count(self) -> None:
        """Count the step whose loss was added."""
        self._unread += 1

    def read(self, steps: int) -> tuple[float, float]:
        """Mean loss and accuracy after `steps` steps of training. UserError, naming the step, if a
        loss is not finite."""
        # in float64, sums over ranks are exact: how many losses are read at once, which decides in
        # what order they are added, changes nothing
        sums = self._losses[: self._unread].double(), self._correct[: self._unread]
        self._ranks.sum(sums)
        losses, correct = (each.tolist() for each in sums)
        for i, loss in enumerate(losses):
            if not math.isfinite(loss):
                before = (self._recent + losses[:i])[-SHOWN:]
                raise self._not_finite(loss, steps - len(losses) + i, before)
            self._sums = [self._sums[0] + loss, self._sums[1] + correct[i], self._sums[2] + 1]
        self._recent, self._unread = (self._recent + losses)[-SHOWN:], 0
        self._row.zero_()
        loss_sum, right, count = self._sums
        return loss_sum / count, right / count / self._recipe.batch_size

    def _not_finite(self, loss: float, step: int, before: Iterable[float]) -> UserError:
        losses = ", ".join(f"{each:.4g}" for each in before)
        return UserError(
            f"the loss became {loss} at step {step} of {self._total}, at learning rate "
            f"{self._recipe.lr_at(step, self._total):.4g} (losses before it: {losses or 'none'}). "
            "Try a smaller recipe.lr, recipe.warmup=0.05 or recipe.clip=1"
        )

    def restart(self) -> None:
        """Reset the means, after an evaluation."""
        self._sums = [0.0, 0.0, 0]

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, as JSON. All losses have been read by then."""
        return {"sums": self._sums, "recent": self._recent}

    def load(self, state: dict[str, Any]) -> None:
        self._sums, self._recent = state["sums"], state["recent"]


@dataclass
class Best:
    """The evaluation with the highest validation accuracy since the number of trained weights last
    changed."""

    step: int = 0
    dim: int = -1
    val_accuracy: float = -1.0
    test_accuracy: float = float("nan")
    since: int = 0  # evaluations since then

    def restart(self, dim: int = -1) -> None:
        """Forget all evaluations: they are of other networks."""
        self.load(asdict(Best(dim=dim)))

    def update(
        self, step: int, dim: int, evaluate: Callable[[str], tuple[float, float]]
    ) -> dict[str, float]:
        """Evaluate on the validation split and, if it is the best so far, on the test split, which
        is reported and never used for selection. Returns the losses and accuracies by their names
        in metrics.jsonl."""
        if dim != self.dim:
            self.restart(dim)
        line = {}
        line["val_loss"], line["val_accuracy"] = evaluate("val")
        # of equal accuracies the earliest is reported
        if line["val_accuracy"] > self.val_accuracy:
            line["test_loss"], line["test_accuracy"] = evaluate("test")
            self.step, self.dim, self.since = step, dim, 0
            self.val_accuracy, self.test_accuracy = line["val_accuracy"], line["test_accuracy"]
        else:
            self.since += 1
        return line

    def state(self) -> dict[str, Any]:
        return asdict(self)

    def load(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            setattr(self, key, value)
