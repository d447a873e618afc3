"""The mathematics: a network seen through the coordinates that train. Needs torch and numpy alone."""

from dimred.net.net import Net
from dimred.net.state import State

__all__ = ["Net", "State"]
