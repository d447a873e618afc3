"""One training step, in two parts with the method's pause between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dimred.data.feed import Feed
from dimred.net import Net
from dimred.net.fused import FusedWeights, fuse, used_in_half
from dimred.net.part import Part, part_of
from dimred.net.synchronised import norms_of, synchronised
from dimred.training.evaluate import RunningLoss
from dimred.training.loss_scaling import LossScaling
from dimred.training.ranks import ALONE, Ranks
from dimred.training.recipe import Recipe
from dimred.training.seen import same

#: keys of an optimiser's group whose values may change: its list of parameters, which are
#: compared one by one, and the numbers that give the value of the tensor group["lr"]
CHANGING = {"params", "scale", "rate"}


class Assumptions(NamedTuple):
    """What a step depends on besides the contents of its tensors.

    parameters: others where coordinates have changed. places: where these lie, elsewhere if a
    parameter was given another tensor (`parameter.data = ...`). state: how often tensors of the
    optimiser's state were replaced. settings: everything else.
    """

    parameters: list[nn.Parameter]
    places: list[int]
    state: int
    settings: list[Any]

    def hold(self, now: Assumptions) -> bool:
        """Whether nothing has changed."""
        if (self.places, self.state) != (now.places, now.state):
            return False
        return same(self.settings, now.settings) and same(self.parameters, now.parameters)


class Step:
    """Computes gradients, and takes the optimiser's step.

    Each part executes the same operations on the same storages, step after step, until coordinates
    change. So it may be captured (capture.py).

    fused: write the weights of which a part trains by one kernel (net/fused.py), as GPUs need.
    ranks: which share of the batch this process computes.
    captured: how many steps of this run were replayed graphs; of this class, none.
    reason: why steps are not captured, where that was tried.
    """

    captured, reason = 0, ""

    def __init__(
        self,
        net: Net,
        recipe: Recipe,
        feed: Feed,
        optimizer: torch.optim.Optimizer,
        running_loss: RunningLoss,
        *,
        fused: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        self.net, self.recipe, self.feed = net, recipe, feed
        self.optimizer, self.running_loss, self.ranks = optimizer, running_loss, ranks
        # the norms that use the statistics of all ranks
        self._norms = norms_of(net.model) if ranks.synchronises(recipe) else []
        self.scaling = LossScaling(running_loss.device) if recipe.fp16 else None
        self.part: Part | None = None  # what of the model is computed, if not all of it
        self._fuses = fused
        self._fused: list[FusedWeights] = []
        # what `prepare` has found; the objects are kept, so that no other gets their identity
        self._assumed = Assumptions([], [], -1, [])
        self._modules = [*net.model.modules()]

    def gradients(self) -> None:
        """Compute the gradients of the feed's batch."""
        self.prepare()
        self.compute()

    def compute(self) -> None:
        """The part of `gradients` that may be captured."""
        self.net.zero_grad()
        self.running_loss.add(*self.backward())

    def backward(self) -> tuple[Tensor, Tensor, Tensor]:
        """The forward and the backward pass: loss, logits and labels of the feed's batch."""
        images, labels = self.feed.batch()
        with (
            self.net.weights_in_place(self._thetas(), self.recipe.channels_last) as model,
            synchronised(self._norms, self.ranks.gather),
        ):
            compute = part_of(model, self.part)
            if self.recipe.accumulate == 1:
                loss, logits = self._backward(compute, images, labels)
            else:
                loss, logits = self._accumulated(compute, images, labels)
        return loss, logits, labels

    def _accumulated(
        self, compute: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same, of micro-batches one after the other: their gradients add up to those of the
        batch, and memory is needed for the activations of one. All compute with the same weights,
        so the graph of these is kept until the last."""
        count = self.recipe.accumulate
        parts = zip(images.tensor_split(count), labels.tensor_split(count), strict=True)
        losses, logits = list[Tensor](), list[Tensor]()
        for number, part in enumerate(parts, 1):
            share = len(part[1]) / len(labels)
            loss, outputs = self._backward(compute, *part, share, keep=number < count)
            losses.append(loss.detach())
            logits.append(outputs.detach())
            del loss, outputs  # and with them the activations
        return torch.stack(losses).sum(), torch.cat(logits)

    def _backward(
        self,
        compute: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        share: float = 1.0,
        keep: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Loss and logits of these examples, which are a share of those of this process."""
        logits = self.recipe.logits(compute, images)
        loss = self.recipe.loss(logits, labels) + self.net.penalty()
        loss = self.ranks.part_of_loss(loss, self.recipe.batch_size)
        if share < 1:
            loss = loss * share
        if loss.requires_grad:  # else nothing is trained
            scaled = self.scaling.scale(loss) if self.scaling else loss
            scaled.backward(retain_graph=keep)
        return loss, logits

    def unscale(self) -> None:
        """Make the gradients those of the loss, once they are summed over all processes."""
        if self.scaling:
            self.scaling.unscale(self.net)

    def update(self) -> None:
        """Take the optimiser's step with the gradients that are there after the pause."""
        if not (self.scaling and self.scaling.overflowed):
            if self.recipe.clip:
                torch.nn.utils.clip_grad_norm_(self.net.parameters().values(), self.recipe.clip)
            self.optimizer.step()
        if self.scaling:
            self.scaling.update()

    def report(self) -> dict[str, Any]:
        """What result.json says of the steps."""
        return {"captured_steps": self.captured, **(self.scaling.report() if self.scaling else {})}

    def state(self) -> dict[str, Any]:
        """For a checkpoint, as JSON."""
        scaling = {"scaling": self.scaling.state()} if self.scaling else {}
        return {"captured": self.captured, **scaling}

    def load(self, state: Mapping[str, Any]) -> None:
        self.captured = state["captured"]
        if self.scaling:
            self.scaling.load(state["scaling"])

    # -- coordinates --------------------
    def prepare(self) -> None:
        """Look for changes of what a step assumes."""
        if not self._fuses or self.is_prepared():
            return
        in_place = same(self._assumed.settings, self.assumptions().settings) and self._refill()
        if not in_place:
            self._fused = self._fuse()
        self.coordinates_changed(in_place)
        self._assumed = self.assumptions()  # coordinates may have moved

    def coordinates_changed(self, in_place: bool) -> None:
        """Called by `prepare`. in_place: the same weights have as many coordinates as before, and
        are written where the old ones were."""

    def is_prepared(self) -> bool:
        """Whether nothing has changed since `prepare`."""
        return self._assumed.hold(self.assumptions())

    def assumptions(self) -> Assumptions:
        net = self.net
        parameters = [*net.parameters().values()]
        settings: list[Any] = [*net.transforms.values(), self.feed, self.part]
        settings += [module.training for module in self._modules]
        settings += [parameter.requires_grad for parameter in parameters]
        for group in self.optimizer.param_groups:
            settings += [value for key, value in group.items() if key not in CHANGING]
        places = addresses(parameters)
        return Assumptions(parameters, places, net.optimizer_state.version, settings)

    def _refill(self) -> bool:
        partly = {name for name, w in self.net.weights.items() if w.support is not None and w.dim}
        fused = {name for each in self._fused for name in each.weights}
        return partly == fused and all(each.refill() for each in self._fused)

    def _fuse(self) -> list[FusedWeights]:
        if self.part:  # it has weights of its own
            return []
        net = self.net
        made = net.transforms.keys() | net.bases.keys()
        half = used_in_half(net.model) if self.recipe.bf16 else set()
        plain = {name: w for name, w in net.weights.items() if name not in made}
        return fuse(plain, half, self.recipe.channels_last)

    def _thetas(self) -> Mapping[str, Tensor] | None:
        """The weights to compute with; None for all of them, one by one."""
        if self.part:
            return self.part.thetas(self.net)
        if not self._fuses:
            return None
        written = dict[str, Tensor]()
        for fused in self._fused:
            written |= fused.thetas()
        others = {n: w.theta() for n, w in self.net.weights.items() if n not in written}
        return others | written


def addresses(tensors: Iterable[Tensor]) -> list[int]:
    """Where they lie."""
    return [tensor.data_ptr() for tensor in tensors]
