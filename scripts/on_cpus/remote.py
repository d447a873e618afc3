"""Kernels that another process calls: see serve.cpp."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dimred.kernels import calls


@contextmanager
def kernels_of(command: Sequence[str]) -> Iterator[None]:
    """Within the block, dimred's kernels are those of the process of this command."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        calls.pointers = tensors  # type: ignore[assignment]
        calls.function = Remote(process).function  # type: ignore[assignment]
        yield
        assert process.stdin
        process.stdin.close()


class Remote:
    """Sends calls of kernels, with the memory of their arguments."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def function(self, name: str, dtype: torch.dtype) -> Callable[..., None]:
        return partial(self.call, f"{name}_{calls.DTYPES[dtype]}")

    def call(self, name: str, *arguments: Any) -> None:
        reals = [each for each in arguments if isinstance(each, float)]
        others = [each for each in arguments if not isinstance(each, float)]
        lines = [f"{name} {reals[0] if reals else 0.0!r} {len(others)}"]
        memory = list[ctypes.Array]()
        for each in others:
            if isinstance(each, int):
                lines.append(f"i {each}")
            elif each is None:
                lines.append("b -1")
            else:
                memory.append(as_bytes(each))
                lines.append(f"b {len(memory[-1])}")
        given, answers = self.process.stdin, self.process.stdout
        assert given and answers
        given.write("\n".join([*lines, ""]).encode() + b"".join(map(bytes, memory)))
        given.flush()
        for each in memory:
            answer = answers.read(len(each))
            if len(answer) < len(each):
                raise RuntimeError(f"{name} has ended the process that calls it")
            each[:] = answer


def tensors(*given: Tensor | None) -> list[Tensor | None]:
    """In place of their addresses, which mean nothing to another process."""
    return [*given]


def as_bytes(value: Tensor | ctypes.Array) -> ctypes.Array:
    """The memory of an array or of a tensor that lies in one piece."""
    if isinstance(value, Tensor):
        size = value.numel() * value.element_size()
        return (ctypes.c_char * size).from_address(value.data_ptr())
    return (ctypes.c_char * ctypes.sizeof(value)).from_buffer(value)
