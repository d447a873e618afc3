"""Several processes of one run, as torchrun would start them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from commands import processes

from dimred.errors import UserError

Work = Callable[[], Any]


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


def as_rank(rank: int, size: int, port: int) -> Callable[[], None]:
    """Make a process what torchrun makes it: by its environment, and a session of its own."""
    return partial(set_up, environment(rank, size, port))


def set_up(variables: dict[str, str]) -> None:
    os.environ.update(variables)
    os.setsid()


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def on_ranks(works: dict[str, Work], size: int, folder: Path) -> list[dict[str, Any]]:
    """Do all of this on so many processes; what each makes of it, as JSON. A UserError is its
    text."""
    port = free_port()
    started = []
    for rank in range(size):
        path = folder / f"{rank}.json"
        arguments = environment(rank, size, port), works, path
        started.append((processes.Process(target=_work, args=arguments), path))
        started[-1][0].start()
    for process, _ in started:
        process.join(100)
        assert process.exitcode == 0
    return [json.loads(path.read_text()) for _, path in started]


def _work(variables: dict[str, str], works: dict[str, Work], path: Path) -> None:
    set_up(variables)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {}
    for name, work in works.items():
        try:
            found[name] = work()
        except UserError as error:
            found[name] = str(error)
        dist.barrier()
    path.write_text(json.dumps(found))
    dist.destroy_process_group()
