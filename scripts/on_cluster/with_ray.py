"""A sweep on a Ray cluster of two nodes, of which one is killed."""

from __future__ import annotations

import importlib.util
import socket
from contextlib import ExitStack
from pathlib import Path

import sweeps

AGENTS = (
    *("metrics_agent_port", "runtime_env_agent_port"),
    *("metrics_export_port", "dashboard_agent_listen_port"),
)


def needs() -> str:
    """What is missing; empty if nothing is."""
    return "" if importlib.util.find_spec("ray") else "ray: pip install 'dimred[ray]'"


def run(folder: Path) -> None:
    from ray.cluster_utils import Cluster

    reference = sweeps.reference(folder.parent)
    outputs = folder / "node_dies"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **ports()})
    try:
        node = cluster.add_node(num_cpus=1, **ports())
        process = sweeps.start(
            "hydra/launcher=ray", f"hydra.launcher.address={cluster.address}", outputs=outputs
        )
        sweeps.until(sweeps.begun(outputs, 2))
        cluster.remove_node(node, allow_graceful=False)
        lost = sweeps.lost_seconds(outputs)
        cluster.add_node(num_cpus=1, **ports())
        sweeps.ended(process, outputs)
    finally:
        cluster.shutdown()
    assert lost <= sweeps.CHECKPOINT_SECONDS + 1, lost
    resumed = sweeps.count(outputs, "resumed at step")
    print(f"ray: {lost:.1f} s of training lost at most, {resumed} runs were resumed")
    sweeps.require_same(outputs, reference)
    print("ray: the same bits as one after the other")


def ports() -> dict[str, int]:
    """Free ports for the agents of a node. Otherwise its daemon waits until agents have chosen
    theirs, and ends after 15 seconds, which are too few on a busy machine."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in AGENTS]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(AGENTS, sockets, strict=True)}
