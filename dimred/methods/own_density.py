"""The density that a method with learned sparsity reaches by itself, before the final pruning."""

from __future__ import annotations

import logging

from dimred.net import Net

log = logging.getLogger(__name__)

# largest share of the weights to be pruned that the final cut prunes without a warning
MOST = 0.1


def note_own_density(net: Net, used: int, density: float, advice: str) -> None:
    """Report the measures `own_density`, the share of all weights that the method itself would use,
    and `left_to_cut`, the share of the weights to be pruned that it has not pruned. Warn if that is
    more than a tenth.

    used: how many weights the method itself would use; density: what was asked for; advice: how it
    prunes more."""
    own = used / net.total
    left = max(0.0, own - density) / (1 - density) if density < 1 else 0.0
    net.reported["own_density"] = own
    net.reported["left_to_cut"] = left
    if left > MOST:
        log.warning(
            "by itself the method reached density %.3g, where %.3g was asked for: the final cut "
            "prunes %.0f %% of the weights to be pruned. %s",
            own,
            density,
            100 * left,
            advice,
        )
