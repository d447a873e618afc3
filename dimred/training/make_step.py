"""Which kind of step a recipe takes on a device: captured in CUDA graphs, or computed eagerly."""

from __future__ import annotations

import torch

from dimred.errors import require
from dimred.net import Net
from dimred.training.batches import Batches
from dimred.training.capture import CapturedStep, CudaCapture, use_own_stream
from dimred.training.deterministic import choose_kernels
from dimred.training.evaluate import RunningLoss
from dimred.training.ranks import Ranks
from dimred.training.recipe import Recipe
from dimred.training.step import Step


def prepare(net: Net, recipe: Recipe) -> None:
    """Let the net and its device compute as the recipe and equal bits need it. Before an optimiser
    is made."""
    device = next(net.model.parameters()).device
    if device.type == "cuda":
        use_own_stream(device)
        choose_kernels(recipe.deterministic)
    if recipe.theta == "rewritten":
        net.rewrite_theta()
    if recipe.compile:
        net.compile(retained=recipe.accumulate > 1)


def make_step(
    net: Net,
    recipe: Recipe,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    running_loss: RunningLoss,
    ranks: Ranks,
) -> Step:
    """A step on the device of the running loss. UserError if recipe.capture=true, and it cannot be
    captured."""
    on_gpu = running_loss.device.type == "cuda"
    waits = ranks.synchronises(recipe)  # for others, within a step
    if recipe.capture is True:
        require_capturable(running_loss.device, waits)
    kept = recipe.theta == "kept"
    captured = on_gpu and recipe.capture is not False and kept and not waits and not recipe.fp16
    parts = net, recipe, batches.feed(fixed=captured), optimizer, running_loss
    if captured:
        required = recipe.capture is True
        return CapturedStep(*parts, capture=CudaCapture(), required=required, ranks=ranks)
    return Step(*parts, fused=on_gpu and kept, ranks=ranks)


def require_capturable(device: torch.device, waits: bool) -> None:
    require(
        device.type == "cuda",
        "recipe.capture",
        True,
        f"auto or false on device={device}: only a GPU has graphs of steps",
    )
    require(
        not waits,
        "recipe.capture",
        True,
        "auto or false with recipe.sync_batchnorm=true: a graph does not wait for other processes",
    )
