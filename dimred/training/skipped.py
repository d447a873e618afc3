"""What steps compute, and what they need not: frozen layers whose activations are cached, or
removed channels.

After structured pruning with `recipe.skip_removed_channels`, training and evaluation compute the
remaining channels alone (channels/remaining.py). Like the cache of frozen layers, this depends on
the net alone, so a resumed run gets the bits that it had; sums of fewer terms may be rounded
differently from those of the full model.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from dimred.channels.remaining import Remaining, remaining
from dimred.channels.selection import Channels
from dimred.data.base import Data, Source
from dimred.data.mixed import Mixed
from dimred.errors import UserError
from dimred.net import Net
from dimred.net.part import Part, nearly_equal
from dimred.net.prefix import Prefix
from dimred.training.frozen import FrozenLayers
from dimred.training.recipe import Recipe
from dimred.training.seen import Seen

log = logging.getLogger(__name__)


class Skipped:
    """Follows the net.

    part: what is computed of the model, or None for all of it.
    source: the inputs of this part.
    images: the inputs of all of the model, in training mixed if the recipe mixes them.
    """

    def __init__(
        self, net: Net, data: Data, recipe: Recipe, seed: int = 0, folder: Path | None = None
    ) -> None:
        self.frozen = FrozenLayers(net, data, recipe, seed, folder)
        self.removed = RemovedChannels(net, data, recipe)
        self.images: Source = data
        if recipe.mixes:
            self.images = Mixed(data, recipe.mixup, recipe.cutmix)

    @property
    def prefix(self) -> Prefix | None:
        return self.frozen.prefix

    @property
    def part(self) -> Part | None:
        return self.frozen.prefix or self.removed.part

    @property
    def source(self) -> Source:
        return self.frozen.source if self.frozen.prefix else self.images

    def changed(self, whole: bool) -> bool:
        """Look at the net; whether `part` or `source` has changed.

        whole: nothing may be skipped, because a method uses the gradients of all weights."""
        return self.frozen.changed(whole) | self.removed.changed(whole)

    def current(self) -> tuple[Source, Part | None]:
        """Source and part if they are those of the present net; else all of the model."""
        if self.frozen.is_current() and self.removed.is_current():
            return self.source, self.part
        return self.images, None


class RemovedChannels:
    """part: the remaining channels, if any are removed and nothing else is pruned."""

    def __init__(self, net: Net, data: Data, recipe: Recipe) -> None:
        self.net, self.data, self.skips = net, data, recipe.skip_removed_channels
        self.part: Remaining | None = None
        self._seen = Seen(net)
        self._channels: Channels | None = None

    def changed(self, whole: bool) -> bool:
        if not self.skips or self._seen.is_same(whole):
            return False
        before = self.part
        self.part = None if whole else self._find()
        self._seen.look(whole)
        return self.part is not before

    def is_current(self) -> bool:
        return self.part is None or self._seen.is_same(False)

    def _find(self) -> Remaining | None:
        images = self.data.sample(min(2, self.data.sizes["train"]), 0)[0]
        if self._channels is None:
            try:
                self._channels = Channels(self.net, images)
            except UserError:  # this model has none that can be removed
                self.skips = False
                return None
        found = remaining(self.net, self._channels)
        if found is None:
            return None
        if not self._computes_the_same(found, images):
            log.info("removed channels are computed, because the model depends on their number")
            return None
        count = self._channels.count
        log.info("removed channels are not computed: %d of %d remain", found.count, count)
        return found

    @torch.no_grad()
    def _computes_the_same(self, part: Remaining, images: torch.Tensor) -> bool:
        net = self.net
        training = net.model.training
        net.train(False)
        try:
            with net.weights_in_place(part.thetas(net)) as model:
                found = part.of(model)(images)
            return nearly_equal(net(images), found)
        except RuntimeError:  # shapes that do not fit
            return False
        finally:
            net.train(training)
