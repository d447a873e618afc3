"""One run on two nodes, of which each has a torchrun of its own: here two on this machine.

The run has the bits of a run on as many processes of one node; also after a process of it, or a
whole node, was killed in the middle. Prints a line for each.

    scripts/on_ranks/nodes.py [PROCESSES OF A NODE ...]
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RUN = (
    *("train", "method=rigl", "method.update_every=20", "recipe.epochs=60", "device=cpu"),
    *("model=lenet300", "dataset=digits", "checkpoint_seconds=0.5"),
)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")


class Node:
    """torchrun on one node, and what it prints."""

    def __init__(self, outputs: Path, name: str, *options: str, **variables: str) -> None:
        outputs.mkdir(parents=True, exist_ok=True)
        self.printed = outputs / f"printed by {name}"
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
        command = [*TORCHRUN, *options, "-m", "dimred", *RUN, f"outputs={outputs}"]
        with open(self.printed, "ab") as printed:
            self.process = subprocess.Popen(
                command, env=environment, stdout=printed, stderr=printed, start_new_session=True
            )

    def workers(self) -> list[int]:
        listing = subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True
        )
        return [int(line) for line in listing.stdout.split()]

    def die(self) -> None:
        """As of a machine that loses its power."""
        workers = self.workers()
        self.process.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        return self.process.wait(300)


def nodes(outputs: Path, each: int, *options: str, **variables: str) -> Callable[[str], Node]:
    """Starts a node, by its name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    rendezvous = ("--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "--rdzv-id=run")
    of_both = ("--nnodes=2", f"--nproc-per-node={each}", *rendezvous, *options)
    return lambda name: Node(outputs, name, *of_both, **variables)


def main() -> int:
    counts = [int(each) for each in sys.argv[1:]] or [1, 2]
    with tempfile.TemporaryDirectory() as place:
        for each in counts:
            reference = Path(place) / f"{2 * each} processes"
            ended(Node(reference, "one", f"--nproc-per-node={2 * each}"))
            for what in (undisturbed, process_dies, node_dies):
                outputs = Path(place) / f"{what.__name__} {each}"
                print(f"2 nodes of {each}, {what.__name__}: {what(outputs, each)}", flush=True)
                require_same(outputs, reference)
    print("all runs have the bits of runs on one node")
    return 0


def undisturbed(outputs: Path, each: int) -> str:
    start = nodes(outputs, each)
    both = [start("first"), start("second")]
    ended(*both)
    return "done"


def process_dies(outputs: Path, each: int) -> str:
    """Both torchruns start their processes again."""
    start = nodes(outputs, each, "--max-restarts=2")
    both = [start("first"), start("second")]
    until(lambda: steps(outputs) > 100)
    os.kill(both[1].workers()[-1], signal.SIGKILL)
    ended(*both)
    return resumed(outputs)


def node_dies(outputs: Path, each: int) -> str:
    """The other one waits until the node is started again. A new torchrun cannot join where the
    others share a store with their processes, as they do unless told otherwise."""
    start = nodes(outputs, each, "--max-restarts=2", TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    first, second = start("first"), start("second")
    until(lambda: steps(outputs) > 100)
    second.die()
    began = time.monotonic()
    ended(first, start("second"))
    return f"{resumed(outputs)}; {time.monotonic() - began:.0f} s until it was done"


def ended(*started: Node) -> None:
    for node in started:
        if status := node.end():
            print(node.printed.read_text())
            raise SystemExit(f"torchrun ended with {status}")


def resumed(outputs: Path) -> str:
    log = (run_in(outputs) / "log.txt").read_text()
    return ", ".join(re.findall(r"resumed at step \d+", log)) or "NOT resumed"


def run_in(outputs: Path) -> Path:
    (config,) = outputs.glob("runs/*/*/*/config.yaml")
    return config.parent


def steps(outputs: Path) -> int:
    """The steps after which metrics were written and a checkpoint exists."""
    if not [*outputs.glob("runs/*/*/*/checkpoint/last.safetensors")]:
        return 0
    lines = (run_in(outputs) / "metrics.jsonl").read_text().splitlines()
    return 20 * len(lines)


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        time.sleep(0.05)


def require_same(outputs: Path, reference: Path) -> None:
    one, other = run_in(outputs), run_in(reference)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), (one, name)
    with np.load(one / "masks.npz") as masks, np.load(other / "masks.npz") as others:
        assert all(np.array_equal(masks[key], others[key]) for key in others), one


if __name__ == "__main__":
    sys.exit(main())
