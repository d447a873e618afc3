"""Warnings about weights that cannot train, each given once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dimred.net import Net

log = logging.getLogger(__name__)


def warn_if_untrainable(net: Net, name: str) -> None:
    """After a change of coordinates: warn if this weight cannot train."""
    w, basis = net.weights[name], net.bases.get(name)
    if w.dim:
        net.collapsed.discard(name)
    elif name not in net.collapsed:
        net.collapsed.add(name)
        log.warning("layer collapse: none of the %d weights of %s are left to train", w.size, name)
    if basis is None or not basis.zero_gradient_at_zero or net.warned_no_gradient:
        return
    if not w.psi.all():
        net.warned_no_gradient = True
        log.warning(
            "weights of %s join at zero, where this basis has no gradient: they will not train. "
            "Choose a method that grows no weights, or basis=none",
            name,
        )
