"""A sweep on a Ray cluster of two nodes, of which one is killed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import sweeps


def needs() -> str:
    """What is missing; empty if nothing is."""
    return "" if importlib.util.find_spec("ray") else "ray: pip install 'dimred[ray]'"


def run(folder: Path, reference: Path) -> None:
    from ray.cluster_utils import Cluster

    outputs = folder / "node_dies"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        process = sweeps.start(
            "hydra/launcher=ray", f"hydra.launcher.address={cluster.address}", outputs=outputs
        )
        sweeps.until(sweeps.begun(outputs, 2))
        cluster.remove_node(node, allow_graceful=False)
        lost = sweeps.lost_seconds(outputs)
        cluster.add_node(num_cpus=1)
        sweeps.ended(process, outputs)
    finally:
        cluster.shutdown()
    assert lost <= sweeps.CHECKPOINT_SECONDS + 1, lost
    resumed = sweeps.count(outputs, "resumed at step")
    print(f"ray: {lost:.1f} s of training lost at most, {resumed} runs were resumed")
    sweeps.require_same(outputs, reference)
    print("ray: the same bits as one after the other")
