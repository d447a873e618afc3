"""Bytes that a training step sums over processes: dimred, which sends what is trained, and
PyTorch's DistributedDataParallel (DDP) of a dense net and of one pruned by torch.nn.utils.prune.

Those of DDP are counted in its buckets, by a communication hook, and in the buffers that it
broadcasts: the running statistics of norms, which dimred sends, too, and the masks.

    torchrun --nproc-per-node 2 scripts/benchmarks/reduced.py [--sparsity S]
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
import torch.nn.functional as F
from nets import MODELS, covered
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import prune
from torchvision.models import resnet50

from dimred.net import Net
from dimred.scores import random_scores
from dimred.select.topk import topk
from dimred.training.group import Group
from dimred.training.recipe import Recipe

BATCH = 4  # for each process; it does not matter
IMAGENET = (3, 64, 64)


def by_ddp(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """What DDP sends in a step."""
    sent = [buffer.nbytes for buffer in model.buffers() if buffer.is_floating_point()]
    parallel = DistributedDataParallel(model)

    def count(state, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations as text
        sent.append(bucket.buffer().nbytes)
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda done: done.value()[0] / dist.get_world_size())

    parallel.register_comm_hook(None, count)
    F.cross_entropy(parallel(images), labels).backward()
    return sum(sent)


def by_dimred(model: nn.Module, sparsity: float, images: torch.Tensor, labels: torch.Tensor) -> int:
    net, ranks = Net(model, seed=0), Group()
    net.keep(topk(random_scores(net, "bench"), round((1 - sparsity) * net.total)))
    F.cross_entropy(net(images), labels).backward()
    ranks.reduce(net)
    return int(ranks.report(Recipe())["reduced_bytes_per_step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sparsity", type=float, default=0.9)
    sparsity = parser.parse_args().sparsity
    dist.init_process_group("gloo")
    builders = {
        "LeNet-300-100": (MODELS["LeNet-300-100"].build, MODELS["LeNet-300-100"].shape),
        "VGG-16": (MODELS["VGG-16"].build, MODELS["VGG-16"].shape),
        "ResNet-50": (resnet50, IMAGENET),
    }
    lines = ["| model | DDP, dense | DDP, torch prune | dimred | |", "|---|---|---|---|---|"]
    for name, (build, shape) in builders.items():
        torch.manual_seed(0)
        batch = torch.randn(BATCH, *shape), torch.randint(10, (BATCH,))
        dense, masked = by_ddp(build(), *batch), build()
        for module in covered(masked):
            prune.random_unstructured(module, "weight", amount=sparsity)
        found = dense, by_ddp(masked, *batch), by_dimred(build(), sparsity, *batch)
        sizes = " | ".join(f"{each / 1e6:.3g} MB" for each in found)
        lines.append(f"| {name} | {sizes} | {found[2] / found[0]:.3f}x |")
    if dist.get_rank() == 0:
        print("\n".join(lines))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
