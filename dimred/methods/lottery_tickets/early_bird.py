"""Early-bird tickets."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from dimred.channels.selection import Channels
from dimred.fields import Checked, Fraction, NotNegative, OpenFraction, Sparsity, at_least
from dimred.net import Net
from dimred.training.loop import Train

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EarlyBird(Checked):
    """Early-bird tickets: train with an L1 penalty on the scales of norms until the channel mask is
    stable, and continue with these channels alone.

        mask = the channels with the largest |gamma|, one after every epoch;
        found when each of the last `masks` masks
        differs from the newest in at most the fraction max_distance of all channels;
        gradient of gamma += s sign(gamma)

    If no ticket is found by search_until, the mask of that step is used (ours). The penalty ends
    with the search. Channels coupled by additions have several scales; they are ranked by the mean
    (ours).

    Trains: all weights until the ticket is found, then its channels; stores: nothing: the remaining
    net is small and dense; needs: dense weights and gradients until the ticket is found.

    You, Li, Xu, Fu, Wang, Chen, Baraniuk, Wang, Lin, ICLR 2020 (arXiv:1909.11957), alg. 1.
    """

    sparsity: Sparsity = 0.9
    count: Literal["weights", "channels"] = "weights"
    masks: Annotated[int, at_least(2)] = 5  # successive masks that have to agree
    max_distance: Fraction = 0.1
    search_until: OpenFraction = 0.5  # the end of the search, as a fraction of training
    penalty: NotNegative = 1e-4  # s, on the scales of norms

    def run(self, net: Net, train: Train) -> None:
        channels, end = Channels(net, train.sample(1)[0]), int(self.search_until * len(train))
        channels.require_scales("early_bird")
        net.method_state["masks"] = channels.everything().new_empty(0, channels.count)
        for t in train.steps():
            masks = net.method_state.get("masks")
            if masks is None:  # the channels are chosen
                continue
            # one mask after every epoch, as in the paper, and one at the end of the search
            if (t and t % train.epoch_steps == 0) or t == end:
                mask = channels.best(channels.mean_scale(), 1 - self.sparsity, self.count)
                masks = net.method_state["masks"] = torch.cat((masks, mask[None]))[-self.masks :]
                if self.agree(masks) or t == end:
                    log.info(
                        "channels chosen at step %d%s",
                        t,
                        " (their mask is not stable yet)" if t == end else "",
                    )
                    channels.keep(mask)
                    del net.method_state["masks"]
            channels.add_l1_gradient(self.penalty)

    def agree(self, masks: Tensor) -> bool:
        """Whether there are enough masks, and each differs little from the newest."""
        distances = (masks != masks[-1]).double().mean(1)
        return len(masks) == self.masks and bool((distances <= self.max_distance).all())
