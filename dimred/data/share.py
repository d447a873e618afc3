"""The part of every batch that one process computes, where several train one network."""

from __future__ import annotations

from typing import NamedTuple


class Share(NamedTuple):
    """That of process `rank` of `size` processes."""

    rank: int = 0
    size: int = 1

    def of(self, count: int, first: int = 0) -> slice:
        """Its part of `count` examples, which begin at `first`. Parts are disjoint, and differ by
        one example at most."""
        start, stop = count * self.rank // self.size, count * (self.rank + 1) // self.size
        return slice(first + start, first + stop)


WHOLE = Share()
