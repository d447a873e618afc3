"""Methods: programs that choose the coordinates of a net and train them.

A method is a frozen dataclass with a `run`. Its fields are its hyper-parameters, and
conf/method/NAME.yaml gives them their values. Docstrings have three parts: one sentence, the
equation, the source."""

from typing import Protocol

from dimred.methods.at_init import (
    COPS,
    FORCE,
    LAMP,
    NTKSAP,
    NTT,
    PHEW,
    SNIP,
    AtInit,
    CroP,
    FreezeNet,
    GraSP,
    IterSNIP,
    Magnitude,
    ProsPr,
    Random,
    SynFlow,
)
from dimred.methods.dormant import DeepR, TopKAST
from dimred.methods.dynamic import DSR, ITOP, MEST, SET, SNFS, GraNet, RigL
from dimred.methods.freeze import (
    ELM,
    DropBack,
    FreezeNetValues,
    FreezeNetWD,
    LastLayer,
    NormOnly,
    PartialFilters,
)
from dimred.methods.from_mask import FromMask
from dimred.methods.gradual import ACDC, DPF, GMP, Dense, MagnitudeAfter, WeightMom
from dimred.methods.layer_freezing import AutoFreeze, FreezeOut
from dimred.methods.patterns import NM, SRigL
from dimred.methods.soft import DST, HALO, STR, Movement, SoftMovement
from dimred.methods.structured import ChannelAtInit, L1Filters, NetworkSlimming
from dimred.methods.subspace import IntrinsicDimension, Subspace
from dimred.methods.supermask import (
    BernoulliSupermask,
    EdgePopup,
    IterRand,
    RareGems,
    SignedSupermask,
)
from dimred.methods.ticket import IMP, ContinuousSparsification, EarlyBird
from dimred.net import Net
from dimred.train import Train


class Method(Protocol):
    def run(self, net: Net, train: Train) -> None:
        """Choose coordinates and train them, in whatever order the paper says."""
        ...


__all__ = [
    "ACDC",
    "COPS",
    "DPF",
    "DSR",
    "DST",
    "ELM",
    "FORCE",
    "GMP",
    "HALO",
    "IMP",
    "ITOP",
    "LAMP",
    "MEST",
    "NM",
    "NTKSAP",
    "NTT",
    "PHEW",
    "SET",
    "SNFS",
    "SNIP",
    "STR",
    "AtInit",
    "AutoFreeze",
    "BernoulliSupermask",
    "ChannelAtInit",
    "ContinuousSparsification",
    "CroP",
    "DeepR",
    "Dense",
    "DropBack",
    "EarlyBird",
    "EdgePopup",
    "FreezeNet",
    "FreezeNetValues",
    "FreezeNetWD",
    "FreezeOut",
    "FromMask",
    "GraNet",
    "GraSP",
    "IntrinsicDimension",
    "IterRand",
    "IterSNIP",
    "L1Filters",
    "LastLayer",
    "Magnitude",
    "MagnitudeAfter",
    "Method",
    "Movement",
    "NetworkSlimming",
    "NormOnly",
    "PartialFilters",
    "ProsPr",
    "Random",
    "RareGems",
    "RigL",
    "SRigL",
    "SignedSupermask",
    "SoftMovement",
    "Subspace",
    "SynFlow",
    "TopKAST",
    "WeightMom",
]
