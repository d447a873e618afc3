"""Coordinates chosen once, before training."""

from dimred.methods.at_init.base import AtInit
from dimred.methods.at_init.cops import COPS
from dimred.methods.at_init.iterative import FORCE, NTKSAP, IterSNIP, SynFlow
from dimred.methods.at_init.one_look import (
    LAMP,
    SNIP,
    CroP,
    FreezeNet,
    GraSP,
    Magnitude,
    ProsPr,
    Random,
)
from dimred.methods.at_init.phew import PHEW
from dimred.methods.at_init.transfer import NTT

__all__ = [
    "COPS",
    "FORCE",
    "LAMP",
    "NTKSAP",
    "NTT",
    "PHEW",
    "SNIP",
    "AtInit",
    "CroP",
    "FreezeNet",
    "GraSP",
    "IterSNIP",
    "Magnitude",
    "ProsPr",
    "Random",
    "SynFlow",
]
