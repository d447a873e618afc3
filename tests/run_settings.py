"""Every method, with settings that make its run short."""

from __future__ import annotations

from conftest import ROOT

METHODS = sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml"))


#: of the methods that cannot do with LeNet-300-100
SUITABLE = dict.fromkeys(("norm_only", "network_slimming", "early_bird"), "resnet20")


#: from_mask needs another run: see test_masks.py
ALONE = [method for method in METHODS if method != "from_mask"]


SHORT = "recipe.steps=3"


#: what takes long, whatever the recipe
QUICK = {
    "imp": ["method.prune_rate=0.9"],
    "ntt": ["method.transfer_steps=2"],
    "ntk_sap": ["method.rounds=2"],
    "synflow": ["method.rounds=5"],
}
