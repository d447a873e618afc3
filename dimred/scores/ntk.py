"""Scores by the neural tangent kernel, K(x, x') = J(x) J(x')^T with J = df/dtheta."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor, nn

from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.net.eager import DispatchMode
from dimred.scores.basic import Thetas, masked, permuted, untouched


def ntk_sap(
    net: Net,
    shape: Sequence[int],
    supports: Supports,
    examples: int,
    draws: int,
    epsilon: float,
    random: torch.Generator,
) -> dict[str, Tensor]:
    """|d/dm sum_x |f(x; theta m) - f(x; (theta + epsilon z) m)|^2| at the mask m of the supports,
    for normal images x of this shape and normal z, summed over several draws of x, z and theta.

    Wang, Li, Sun, ICLR 2023 (arXiv:2304.02840), eq. 8: for small epsilon the sum over x is
    proportional to the trace of the kernel. Norms use the statistics of x at the weights theta m in
    both terms."""
    twin = copy.deepcopy(net)
    initial = twin.dense_weights()
    ones = {name: torch.ones_like(theta) for name, theta in initial.items()}
    masks = masked(ones, supports)
    for mask in masks.values():
        mask.requires_grad_()
    device, dtype = next((theta.device, theta.dtype) for theta in initial.values())

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=random).to(device, dtype)

    for module in twin.model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            # running statistics are then exactly those of the last batch
            module.momentum = 1.0
    with untouched(twin.model):
        for _ in range(draws):
            images, thetas = normal(examples, *shape), permuted(initial, random)
            shifted = {
                name: theta + epsilon * normal(*theta.shape) for name, theta in thetas.items()
            }
            # this pass sets the norms' statistics at theta m; both terms below use them
            twin.train(True)
            with torch.no_grad(), twin.weights_in_place(_times(thetas, masks)) as model:
                model(images)
            twin.train(False)
            with twin.weights_in_place(_times(thetas, masks)) as model:
                out = model(images)
            with twin.weights_in_place(_times(shifted, masks)) as model:
                (out - model(images)).square().sum().backward()
    scores = {name: torch.zeros_like(m) for name, m in masks.items()}
    scores |= {name: m.grad.abs() for name, m in masks.items() if m.grad is not None}
    return scores


def _times(thetas: Thetas, masks: Thetas) -> dict[str, Tensor]:
    return {name: theta * masks[name] for name, theta in thetas.items()}


def kernel_product(
    net: Net,
    thetas: Thetas,
    supports: Supports,
    left: Tensor,
    right: Tensor,
    u: Tensor,
    differentiable: bool = True,
) -> Tensor:
    """K(left, right) u, with the kernel of the weights in the supports, for images (N, ...) and (M,
    ...) and u (M, classes).

    No Jacobian is formed: a backward pass gives v = J(right)^T u, and a forward derivative J(left)
    v. With `differentiable` the result has gradients in thetas. (Differentiating the backward pass
    instead would need third derivatives, which BatchNorm does not have.)"""
    with net.weights_in_place(thetas) as model:
        v = torch.autograd.grad(
            (model(right) * u).sum(),
            list(thetas.values()),
            create_graph=differentiable,
            materialize_grads=True,
        )
    along = masked(dict(zip(thetas, v, strict=True)), supports)
    with torch.set_grad_enabled(differentiable), warnings.catch_warnings(), forward.dual_level():
        # raised by torch 2.15's own code
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        duals = {name: forward.make_dual(theta, along[name]) for name, theta in thetas.items()}
        with net.weights_in_place(duals) as model, OutOfPlace():
            return forward.unpack_dual(model(left)).tangent


class OutOfPlace(DispatchMode):
    """Runs every function unchanged. While a dispatch mode is active, PyTorch computes forward
    derivatives out of place; the in-place derivative of softmax would overwrite a value that its
    gradient needs."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def transfer(
    net: Net,
    student: Thetas,
    teacher: Thetas,
    supports: Supports,
    images: Tensor,
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The distance of a student from its teacher: the mean squared differences of their outputs,
    and of their kernels.

    The kernels are between two halves of the images. For a normal u, the mean of |(K_s - K_t) u|^2
    is the squared norm of K_s - K_t (Hutchinson)."""
    left, right = images.tensor_split(2)
    with net.weights_in_place(student) as model:
        out = model(images)
    with torch.no_grad(), net.weights_in_place(teacher) as model:
        goal = model(images)
    u = torch.randn(len(right), out.shape[1], generator=random).to(out)
    everything: Supports = dict.fromkeys(teacher)
    apart = kernel_product(net, student, supports, left, right, u) - kernel_product(
        net, teacher, everything, left, right, u, differentiable=False
    )
    return (out - goal).square().mean(), apart.square().mean() / u.numel()
