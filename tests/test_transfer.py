"""NTT: the kernel product against Jacobians, and the transfer from a dense network."""

from __future__ import annotations

import torch
from at_init import (
    batch,
    mlp,
)
from torch import Tensor
from toy import set_up

from dimred.methods.pruning_at_init.transfer import NTT
from dimred.net import Net
from dimred.scores import (
    generator,
    kernel_product,
    masked,
    random_scores,
    transfer,
)
from dimred.select.allocations import Uniform
from dimred.select.topk import topk


def test_the_kernel_product_is_that_of_the_jacobians() -> None:
    net = Net(mlp(4, 5, 3).double())
    thetas = {name: theta.clone().requires_grad_() for name, theta in net.dense_weights().items()}
    supports = {"0.weight": torch.arange(0, 20, 2), "2.weight": None}
    images, _ = batch(7, 4)

    def jacobian(images: Tensor) -> Tensor:
        with net.weights_in_place(thetas) as model:
            out = model(images).view(-1)
        rows = [
            masked(
                dict(
                    zip(
                        thetas,
                        torch.autograd.grad(o, list(thetas.values()), retain_graph=True),
                        strict=True,
                    )
                ),
                supports,
            )
            for o in out
        ]
        return torch.stack([torch.cat([row[name].view(-1) for name in thetas]) for row in rows])

    u = torch.randn(4, 3, dtype=torch.float64)
    product = kernel_product(net, thetas, supports, images[:3], images[3:], u)
    assert torch.allclose(
        product.view(-1), jacobian(images[:3]) @ jacobian(images[3:]).T @ u.view(-1)
    )


def test_both_distances_change_the_student() -> None:
    net, train = set_up()
    pruned, (images, _) = topk(random_scores(net), 400), train.sample(8)
    teacher, student = (
        {name: theta.clone().requires_grad_() for name, theta in net.dense_weights().items()}
        for _ in "ts"
    )
    for distance in transfer(
        net, masked(student, pruned), teacher, pruned, images, generator(net, "u")
    ):
        for name, grad in zip(
            student,
            torch.autograd.grad(distance, list(student.values()), retain_graph=True),
            strict=True,
        ):
            assert grad.any() and not masked({name: grad}, pruned)[name].equal(0 * grad)
            assert torch.equal(
                masked({name: grad}, pruned)[name], grad
            )  # what is pruned does not move


def test_a_dense_student_has_distance_zero_from_its_teacher() -> None:
    net, train = set_up()
    thetas = {name: theta.clone().requires_grad_() for name, theta in net.dense_weights().items()}
    images, _ = train.sample(8)
    assert [
        x.item() for x in transfer(net, thetas, thetas, net.supports, images, generator(net, "u"))
    ] == [0, 0]
    pruned = topk(random_scores(net), 400)
    student = masked(thetas, pruned)
    assert all(
        x.item() > 0 for x in transfer(net, student, thetas, pruned, images, generator(net, "u"))
    )


def test_transfer_brings_the_student_closer_than_pruning_by_size() -> None:
    net, train = set_up()
    images, _ = train.sample(64)
    dense = net(images).detach()
    near = []
    for lr in (0.0, 3e-3):
        net, train = set_up()
        NTT(
            sparsity=0.8,
            allocation=Uniform(),
            base="zero",
            ablation="none",
            transfer_steps=20,
            transfer_lr=lr,
            transfer_batch_size=16,
            kernel_weight=1e-3,
            weight_decay=0.0,
            update_every=10,
        ).prune(net, train)
        near.append((net(images) - dense).square().mean().item())
    assert near[1] < 0.75 * near[0]
