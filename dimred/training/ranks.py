"""One run on several processes, called ranks: each computes its share of every batch.

All ranks build the same net, run the same method and take the same steps. They know the whole
batch's order and random numbers, so nothing but sums is exchanged: the gradients of what is trained
in every step, and sums of losses where these are read. Scores are computed by every rank on the
whole sample, which gives all of them the same bits. That their nets are the same is compared.
Rank 0 writes; only its result is kept.

The methods of `Ranks` are those of a run on one process, and do next to nothing. `Group` is a run
on several.
"""

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
from torch import Tensor, nn

from dimred.data.share import WHOLE, Share
from dimred.errors import ProcessLost, UserError, require, see
from dimred.net import Net
from dimred.net.fingerprints import fingerprints
from dimred.net.seeded import seed_generators
from dimred.training.recipe import Recipe

#: about how often the ranks ask each other whether to save or to stop
SECONDS = 1.0


class Ranks:
    """The only process of a run."""

    share = WHOLE

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.share.rank == 0

    def require_possible(self, recipe: Recipe) -> None:
        """UserError for a recipe that so many ranks cannot follow."""

    def wait(self) -> None:
        """Wait for all ranks."""

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """A block that rank 0 is through before the others begin."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def synchronises(self, recipe: Recipe) -> bool:
        """Whether norms use the statistics of the batches of several ranks."""
        return recipe.sync_batchnorm and self.share.size > 1

    # -- sums --------------------
    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks."""

    def gather(self, values: Tensor) -> Tensor:
        """The values (n) of all ranks, as rows."""
        return values[None]

    def part_of_loss(self, loss: Tensor, batch_size: int) -> Tensor:
        """What the mean loss of a share adds to that of the whole batch."""
        return loss

    def reduce(self, net: Net) -> None:
        """Make the gradients of shares those of the whole batch, and buffers those of rank 0."""

    # -- decisions --------------------
    def begin_step(self, seed: int, step: int) -> None:
        """Give each rank random numbers of its own, for the dropout of its share."""

    def end_step(self, seed: int, step: int) -> None:
        """Give all ranks the same random numbers again."""

    def agree(self, stop: int, save: bool) -> tuple[int, bool]:
        """Whether to stop, by which signal, and whether to save: what one rank wants, all do."""
        return stop, save

    def require_same(self, values: Mapping[str, int], what: str) -> None:
        """UserError, naming rank and key, unless the values of all ranks are the same."""

    def require_same_net(self, net: Net, changed: bool = True) -> None:
        """UserError unless all ranks train the same weights, of the same values.

        changed: whether to compare, though supports have not changed since the last time."""

    def report(self, recipe: Recipe) -> dict[str, Any]:
        """What result.json says of a run on several processes."""
        return {}

    def state(self) -> dict[str, int]:
        """For a checkpoint, as JSON."""
        return {}

    def load(self, state: Mapping[str, int]) -> None:
        pass


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

    def reduce(self, net: Net) -> None:
        gradients = [p.grad for p in net.parameters().values() if p.grad is not None]
        dense = net.dense_gradients.sums or {}
        gradients += [dense[name] for name in net.weights if name in dense]
        buffers = moving_buffers(net.model)
        if not self.first:
            for each in buffers:
                each.zero_()
        self.sum([*gradients, *buffers])
        self._reductions += 1
        self._bytes += sum(each.nbytes for each in (*gradients, *buffers))

    # -- decisions --------------------
    def begin_step(self, seed: int, step: int) -> None:
        seed_generators(drawn(seed, step, 1 + self.share.rank))

    def end_step(self, seed: int, step: int) -> None:
        seed_generators(drawn(seed, step, 0))

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


#: a run on one process
ALONE = Ranks()


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


def moving_buffers(model: nn.Module) -> list[Tensor]:
    """The buffers that training may change: those of floating point, such as running statistics, of
    modules in training mode."""
    found: dict[int, Tensor] = {}
    for module in model.modules():
        if module.training:
            for buffer in module.buffers(recurse=False):
                if buffer.is_floating_point():
                    found[id(buffer)] = buffer
    return [*found.values()]


def drawn(*key: int) -> int:
    """A seed that depends on all of these numbers."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
