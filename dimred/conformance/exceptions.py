"""Exceptions: checks that a method of dimred fails by its definition, with the reason. A test fails
if an exception is not needed."""

from __future__ import annotations

from collections.abc import Mapping

WHOLE_CHANNELS = "it keeps whole channels: as many as fit into the budget, and seldom all of it"
NEVER_TRAINS = "it trains scores of weights and never, or only in the end, the weights"
RANKS_ON_HOST = "on a CPU, numpy ranks its scores; on a GPU its steps are captured (scripts/gpu)"
LEARNS_GATES = (
    "what it trains besides the weights (thresholds, gates or penalties) acts at any sparsity"
)

#: methods that the toy nets cannot examine
NOT_EXAMINED: Mapping[str, str] = {
    "from_mask": "it needs the run of another method, with the same model"
}

#: check: {method: why}
EXCEPTIONS: Mapping[str, Mapping[str, str]] = {
    "training": {
        "elm": "it solves for the last layer; its only steps are an epoch in which norms find "
        "their statistics",
    },
    "exact_count": {
        **dict.fromkeys(
            ("channel_at_init", "l1_filters", "network_slimming", "early_bird"), WHOLE_CHANNELS
        ),
        "srigl": "every neuron of a layer has the same number of inputs, which rounds the budget",
    },
    "sparsity_zero": {
        **dict.fromkeys(
            ("edge_popup", "iter_rand", "signed_supermask", "bernoulli_supermask", "rare_gems"),
            NEVER_TRAINS,
        ),
        **dict.fromkeys(
            ("str", "dst", "soft_movement", "continuous_sparsification", "halo"), LEARNS_GATES
        ),
        **dict.fromkeys(
            ("network_slimming", "early_bird"),
            "its L1 penalty on the scales of norms does not depend on the sparsity",
        ),
        "acdc": "every decompression forgets the optimiser's state",
    },
    "sums": {
        "lamp": "it adds up squares by cumsum, which on a GPU it does on the host",
        "phew": "it adds up magnitudes by cumsum, always on the host",
    },
    "capture": {
        **dict.fromkeys(("edge_popup", "iter_rand", "signed_supermask"), RANKS_ON_HOST),
        "deepr": "its coordinates change in every step",
    },
}
