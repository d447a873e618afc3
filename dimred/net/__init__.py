"""The mathematics: a network through the coordinates that are trained. Needs torch and numpy."""

from dimred.net.net import Net
from dimred.net.state import State

__all__ = ["Net", "State"]
