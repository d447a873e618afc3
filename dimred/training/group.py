"""The processes of a run on several; ranks.py says what each method promises."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from dimred.data.share import Share
from dimred.errors import ProcessLost, UserError, require, see
from dimred.net import Net
from dimred.net.buffers import moving_buffers
from dimred.net.fingerprints import fingerprints
from dimred.net.seeded import seed_generators
from dimred.training.ranks import Ranks
from dimred.training.recipe import Recipe

#: about how often the ranks ask each other whether to save or to stop
SECONDS = 1.0


class Group(Ranks):
    """One of several processes, after torch.distributed.init_process_group."""

    def __init__(self) -> None:
        self.share = Share(dist.get_rank(), dist.get_world_size())
        self._reductions = self._bytes = 0
        self._version = -1  # of the supports that were compared
        self._pause = self._left = 1  # steps between two questions, and to the next one
        self._asked = time.monotonic()

    def require_possible(self, recipe: Recipe) -> None:
        size = self.share.size
        on_ranks = f"in a run on {size} processes"
        least = size * recipe.accumulate
        require(
            recipe.batch_size >= least,
            "recipe.batch_size",
            recipe.batch_size,
            f"{least} or more {on_ranks}: each computes a part of every batch"
            + (recipe.accumulate > 1) * f", in {recipe.accumulate} micro-batches",
        )
        for key, value, allowed in (
            ("cache_frozen_mb", recipe.cache_frozen_mb, 0),
            ("cache_frozen_disk_mb", recipe.cache_frozen_disk_mb, 0),
            ("skip_removed_channels", recipe.skip_removed_channels, False),
        ):
            require(value == allowed, f"recipe.{key}", value, f"{allowed} {on_ranks}".lower())
        require(
            recipe.arithmetic != "auto",
            "recipe.arithmetic",
            recipe.arithmetic,
            f"dense or sparse {on_ranks}: by what they measure, they would choose differently",
        )

    def wait(self) -> None:
        self.sum([torch.zeros(1)])

    # -- sums --------------------
    def sum(self, tensors: Sequence[Tensor]) -> None:
        for same in by_type(tensors):
            flat = torch.cat([each.detach().reshape(-1) for each in same])
            with explained():
                dist.all_reduce(flat)
            sums = flat.split([each.numel() for each in same])
            torch._foreach_copy_(
                [each.detach() for each in same],
                [part.view(each.shape) for part, each in zip(sums, same, strict=True)],
            )

    def gather(self, values: Tensor) -> Tensor:
        rows = [torch.empty_like(values) for _ in range(self.share.size)]
        with explained():
            dist.all_gather(rows, values)
        return torch.stack(rows)

    def part_of_loss(self, loss: Tensor, batch_size: int) -> Tensor:
        part = self.share.of(batch_size)
        return loss * ((part.stop - part.start) / batch_size)

    @contextmanager
    def shares(self, net: Net, seed: int, step: int) -> Iterator[None]:
        seed_generators(drawn(seed, step, 1 + self.share.rank))
        yield
        seed_generators(drawn(seed, step, 0))
        self.reduce(net)

    def reduce(self, net: Net) -> None:
        """Sum gradients over all ranks, and copy buffers from rank 0."""
        gradients = [p.grad for p in net.parameters().values() if p.grad is not None]
        dense = net.dense_gradients.sums or {}
        gradients += [dense[name] for name in net.weights if name in dense]
        buffers = [*moving_buffers(net.model).values()]
        if not self.first:
            for each in buffers:
                each.zero_()
        self.sum([*gradients, *buffers])
        self._reductions += 1
        self._bytes += sum(each.nbytes for each in (*gradients, *buffers))

    # -- decisions --------------------
    def agree(self, stop: int, save: bool) -> tuple[int, bool]:
        self._left -= 1
        if self._left:
            return 0, False
        seconds = (time.monotonic() - self._asked) / self._pause
        answers = torch.tensor([stop, save, seconds], dtype=torch.float64)
        with explained():
            dist.all_reduce(answers, dist.ReduceOp.MAX)
        number, saves, slowest = answers.tolist()
        # the seconds of the slowest, so that all pause for as many steps
        self._pause = self._left = max(1, min(2 * self._pause, int(SECONDS / max(slowest, 1e-6))))
        self._asked = time.monotonic()
        return int(number), bool(saves)

    def require_same(self, values: Mapping[str, int], what: str) -> None:
        found = self.gather(torch.tensor([*values.values()], dtype=torch.int64))
        for rank, theirs in enumerate(found):
            different = (theirs != found[0]).nonzero().view(-1).tolist()
            if different:
                raise UserError(
                    f"rank {rank} has {what} {[*values][different[0]]} than rank 0. All "
                    "processes must do the same: run them on machines of one kind with the same "
                    "files, and let a method or a model of your own draw its random numbers from "
                    f"the seed. {see('many_gpus.md#what-is-the-same-on-all-processes')}"
                )

    def require_same_net(self, net: Net, changed: bool = True) -> None:
        if not changed and net.support_version == self._version:
            return
        self._version = net.support_version
        self.require_same(fingerprints(net), "other trained weights in")

    def report(self, recipe: Recipe) -> dict[str, Any]:
        return {
            "processes": self.share.size,
            "batchnorm": "whole batch" if recipe.sync_batchnorm else "share of the batch",
            "backend": dist.get_backend(),
            "reduced_bytes_per_step": self._bytes / max(1, self._reductions),
        }

    def state(self) -> dict[str, int]:
        return {"reductions": self._reductions, "bytes": self._bytes}

    def load(self, state: Mapping[str, int]) -> None:
        # of a run that began on one process, the steps since then
        self._reductions, self._bytes = state.get("reductions", 0), state.get("bytes", 0)


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error of the connection into ProcessLost."""
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):  # of this process
        raise
    except RuntimeError as error:
        if dist.get_rank() == 0:  # torchrun ends the others by SIGTERM; this one speaks for them
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        # without the place in gloo's code, and its advice for programmers
        why = re.sub(r"\[\S*[.]cc:\d+\] |[.] This is .*", "", str(error).partition("\n")[0])
        raise ProcessLost(
            f"another process of this run has ended or cannot be reached ({why}). Its own message, "
            "if it left one, says why. Repeat the command to resume from the last checkpoint"
        ) from error


def by_type(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """The tensors of each type together, without those that have no elements."""
    groups: dict[torch.dtype, list[Tensor]] = {}
    for each in tensors:
        if each.numel():
            groups.setdefault(each.dtype, []).append(each)
    return groups.values()


def drawn(*key: int) -> int:
    """A seed that depends on all of these numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
