"""The processes of a run that torchrun has started, known by the environment that it sets."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dimred.errors import UserError
from dimred.runs.environment import rank, several

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

    from dimred.storage.folder import RunFolder
    from dimred.training.ranks import Ranks

#: for the slowest thing that one process does alone, such as a download
PATIENCE = timedelta(minutes=30)
#: seconds in which rank 0 reports an error that all have, and torchrun ends the others
COURTESY = 3.0


def require_one_process(what: str) -> None:
    """UserError where torchrun has started several processes."""
    if several():
        raise UserError(
            f"torchrun starts one run on all of its processes, and {what} computes several runs. "
            "Start it without torchrun, or choose one run"
        )


def join(device: torch.device) -> Ranks:
    """The processes of this run. All of them have to join."""
    from dimred.training.ranks import ALONE

    if not several():
        return ALONE
    import torch
    import torch.distributed as dist

    from dimred.training.group import Group

    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore(attempt(store, rank, size), store),
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
        atexit.register(dist.destroy_process_group)
    return Group()


def attempt(store: Store, rank: int, size: int) -> str:
    """A name that all processes of this attempt have, and those of earlier ones had not. torchrun
    may keep its store when it restarts processes, with the addresses of the old ones, and each node
    counts the restarts by itself.

    Rank 0 chooses the name, and tells it to every process by the token that this has chosen."""
    own, others = secrets.token_hex(8), [f"{i}" for i in range(1, size)]
    if rank:
        store.set(f"token of {rank}", own)
        name = store.get(f"name for {own}").decode()
        store.set(f"{name}/{rank}", "joined")
        return name
    end = time.monotonic() + PATIENCE.total_seconds()
    while not store.check([f"{own}/{each}" for each in others]) and time.monotonic() < end:
        for each in others:
            if store.check([f"token of {each}"]):  # of an earlier attempt, until it is replaced
                store.set(f"name for {store.get(f'token of {each}').decode()}", own)
        time.sleep(0.02)
    return own


def folder_of_rank(path: Path, ranks: Ranks) -> RunFolder:
    """Rank 0 writes; the others read."""
    from dimred.storage.folder import RunFolder
    from dimred.storage.follower import Follower

    return RunFolder(path) if ranks.first else Follower(path)


def explained_by_rank(text: str) -> str:
    """The error message of this process. Others than rank 0 wait before they print it, since most
    errors are those of all."""
    if rank() == 0:
        return text
    time.sleep(COURTESY)
    return f"process {rank()}: {text}"


def tell_torchrun(text: str) -> None:
    """Let the report of torchrun, the end of what it prints, have this message."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if several() and path:
        message = {"message": text, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):
            Path(path).write_text(json.dumps({"message": message}))
