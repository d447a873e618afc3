"""The density that a method with learned sparsity reaches by itself, before the final pruning."""

from __future__ import annotations

import logging

from dimred.net import Net

log = logging.getLogger(__name__)

# the largest fraction of the pruned weights that the final pruning may remove without a warning
MOST = 0.1


def report_own_density(net: Net, used: int, density: float, advice: str) -> None:
    """Report two measures: `own_density`, the fraction of weights that the method itself would
    keep, and `left_to_cut`, the fraction of the pruned weights that only the final pruning removes.
    Warn if `left_to_cut` is more than a tenth.

    used: the number of weights that the method itself would keep; density: the requested density;
    advice: the setting that makes the method prune more."""
    own = used / net.total
    left = max(0.0, own - density) / (1 - density) if density < 1 else 0.0
    net.reported["own_density"] = own
    net.reported["left_to_cut"] = left
    if left > MOST:
        log.warning(
            "by itself the method reached density %.3g instead of %.3g: the final pruning has to "
            "remove the last %.0f %% of the weights to be pruned. %s",
            own,
            density,
            100 * left,
            advice,
        )
