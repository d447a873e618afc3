"""Activations of the frozen first layers, computed once for each example and stored, in memory or
in a file.

With `recipe.cache_frozen_mb` or `recipe.cache_frozen_disk_mb`, training and evaluation begin with
these activations as soon as and as long as they are the same in every step: no parameter before
them trains, norms use running statistics, nothing is random, and there is no augmentation or a
fixed number of copies of each image (`recipe.augmented_copies`). Whether this holds is
decided from the net and the data alone, and activations are computed in the batches of evaluation.
So a resumed run gets the bits that it had, and evaluation the bits that it has without a cache.
Training batches are rounded as in evaluation, which may differ in the last bits from the batch
sizes of training.
"""

from __future__ import annotations

import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dimred.data.activations import Activations, count
from dimred.data.base import Data, Source
from dimred.net import Net
from dimred.net.longest_prefix import longest_prefix
from dimred.net.part import part_of
from dimred.net.prefix import Prefix
from dimred.training.recipe import Recipe
from dimred.training.seen import Seen

log = logging.getLogger(__name__)

TRIED = 4  # examples that a prefix is tried with
MB = 1e6


class FrozenLayers:
    """Follows the net.

    prefix: the layers that are not computed any more, or None.
    source: what is computed instead of images: the data, or the activations after the prefix.
    folder: of files with activations, which vanish with the process.
    """

    def __init__(
        self, net: Net, data: Data, recipe: Recipe, seed: int = 0, folder: Path | None = None
    ) -> None:
        self.net, self.data, self.recipe, self.seed, self.folder = net, data, recipe, seed, folder
        self.limit = MB * max(recipe.cache_frozen_mb, recipe.cache_frozen_disk_mb)
        self.prefix: Prefix | None = None
        self.source: Source = data
        self._seen, self._computed_at = Seen(net), 0
        self._frozen: tuple[Any, ...] | None = None
        if self.limit and not data.stored_copies:
            self.limit = 0
            log.info(
                "no activations are cached, because %s augments its training images anew in every "
                "epoch. recipe.augmented_copies=5 draws five copies of each once",
                data.name,
            )

    def changed(self, whole: bool = False) -> bool:
        """Look at the net; whether `prefix` and `source` have changed.

        whole: nothing may be skipped, because a method uses the gradients of frozen weights."""
        if not self.limit or (not whole and self._seen.is_same(self._version())):
            return False
        before = self.source
        if whole:
            self._forget()
            return before is not self.source
        frozen = self._what_is_frozen()
        if frozen != self._frozen or not self.is_current():
            self._find()
        self._frozen = frozen
        self._seen.look(self._version())
        return before is not self.source

    def _forget(self) -> None:
        self.prefix, self.source = None, self.data
        self._frozen = None
        self._seen.forget()

    def is_current(self) -> bool:
        """Whether the activations are those of the present net."""
        if self.prefix is None:
            return True
        return self._frozen == self._what_is_frozen() and self._computed_at == self._version()

    def _version(self) -> int:
        return self.prefix.version() if self.prefix else 0

    def _what_is_frozen(self) -> tuple[Any, ...]:
        net = self.net
        return (*net.trained_parameters(), len(net.frozen_norms), len(net.transforms))

    # -- the longest prefix, and its activations --------------------
    def _find(self) -> None:
        images = self.data.sample(min(TRIED, self.data.sizes["train"]), 0)[0]
        channels_last = self.recipe.channels_last
        self._too_large = 0.0
        found = longest_prefix(self.net, images, self.recipe.logits, self._fits, channels_last)
        if found is None:
            self._forget()
            if self._too_large:
                log.info(
                    "activations of frozen layers are not cached: they take %.3g MB, more than "
                    "recipe.cache_frozen_mb=%g and recipe.cache_frozen_disk_mb=%g",
                    self._too_large / MB,
                    self.recipe.cache_frozen_mb,
                    self.recipe.cache_frozen_disk_mb,
                )
            return
        try:
            self.source = self._activations(found)
        except OSError as error:  # the disk is full
            log.warning("activations of frozen layers are not cached: %s", error.strerror)
            self.limit = 0
            self._forget()
            return
        self.prefix, self._computed_at = found, found.version()
        log.info(
            "layers before %s are frozen: their activations (%.3g MB) are computed once",
            found.name,
            self._size(found) / MB,
        )

    def _size(self, prefix: Prefix) -> int:
        return prefix.bytes_per_example() * count(self.data)

    def _fits(self, prefix: Prefix) -> bool:
        size = self._size(prefix)
        if size > self.limit:
            # of several, the one that takes the least
            self._too_large = min(self._too_large or size, size)
        return size <= self.limit

    def _activations(self, prefix: Prefix) -> Activations:
        """The activations after a prefix, computed from the present ones if these come before."""
        net, recipe = self.net, self.recipe
        known, source = self.prefix, self.source
        unchanged = known is not None and self._computed_at == known.version()
        if not unchanged or known is None or known.position >= prefix.position:
            known, source = None, self.data
        net.train(False)
        with torch.no_grad(), net.weights_in_place(channels_last=recipe.channels_last) as model:
            logits = partial(recipe.logits, part_of(model, known))

            def compute(inputs: Tensor) -> Tensor:
                return prefix.activations(logits, inputs)

            in_memory = self._size(prefix) <= MB * recipe.cache_frozen_mb
            place = None if in_memory else self.folder or Path(tempfile.gettempdir())
            made = Activations(self.data, source, compute, self.seed, place)
        net.train()
        return made
