"""Many strings in two tensors."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**16


class Names:
    """Strings, such as the paths of 1.3 million images, in one block of bytes.

    Processes share the block. A list would be 1.3 million objects, and every process that looks at
    one of them copies its page of memory, because Python counts references within objects.
    """

    def __init__(self, text: Tensor, ends: Tensor) -> None:
        """text: the strings as bytes, one after the other, uint8. ends: where each ends, int64."""
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, strings: Iterable[str]) -> Names:
        text, ends = bytearray(), array("q")
        for string in strings:
            text += os.fsencode(string)
            ends.append(len(text))
        return cls(*(torch.from_numpy(np.array(each)) for each in (as_bytes(text), as_int64(ends))))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        start = int(self.ends[i - 1]) if i else 0
        return os.fsdecode(self.text[start : int(self.ends[i])].numpy().tobytes())

    def __iter__(self) -> Iterator[str]:
        start = 0
        for ends in self.ends.split(BLOCK):  # as objects, only so many at a time
            if not len(ends):
                return
            whole = self.text[start : int(ends[-1])].numpy().tobytes()
            first = start
            for end in ends.tolist():
                yield os.fsdecode(whole[start - first : end - first])
                start = end

    def bytes(self) -> int:
        """Its size in memory."""
        return self.text.nbytes + self.ends.nbytes


def as_bytes(text: bytearray) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


def as_int64(numbers: array[int]) -> np.ndarray:
    return np.frombuffer(numbers, np.int64)
