"""Neural tangent transfer: new values of the kept weights, besides their positions."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dimred.errors import counted, require
from dimred.fields import Count, NotNegative, at_least
from dimred.methods.pruning_at_init.base import PruningAtInit
from dimred.net import Net
from dimred.net.coordinates import Supports
from dimred.scores import Thetas, generator, magnitude, masked, transfer, untouched
from dimred.training.loop import Train


@dataclass(frozen=True, kw_only=True)
class NTT(PruningAtInit):
    """Neural tangent transfer: before training, and without labels, adapt the kept weights until
    the sparse network has the outputs and the neural tangent kernel of the dense one.

        min |f_s - f_t|^2 / size + kernel |(K_s - K_t) u|^2 / size + decay / density * |theta_s|^2,
        u ~ N(0, 1)

    The official code compares the whole kernels of two halves of a batch. The product of their
    difference with a random u has the same mean square and needs no Jacobians. Only covered weights
    are adapted (by Adam), and only they count in the kernel; norms work as in training. The mask is
    updated by magnitude every update_every steps, for the last time update_every steps before the
    end. The paper ranks within each layer (allocation=uniform). The official demo takes 18720
    steps; in its published log the kernel distance falls from 6439 to 977 in the first 1000 steps,
    and to 469 after 5600.

    Trains: d weights, after a transfer that adapts all weights it may choose; stores: their
    positions; needs: dense weights and gradients in the transfer.

    Liu, Zenke, ICML 2020 (arXiv:2006.08228).
    """

    transfer_steps: Count = 1000  # before training
    transfer_lr: NotNegative = 0.0005
    transfer_batch_size: Annotated[int, at_least(2)] = 64
    kernel_weight: float = 0.001  # lambda, of the difference of kernels
    weight_decay: float = 1e-5  # lambda, of the squared weights
    update_every: Count = 100  # steps between mask updates

    def choose(self, net: Net, train: Train) -> Supports:
        there = train.data.sizes["train"]
        require(
            self.transfer_batch_size <= there,
            "method.transfer_batch_size",
            self.transfer_batch_size,
            f"{there} or less: {train.data.name} has {counted(there, 'training example')}",
        )
        budget = self.allocation(net, 1 - self.sparsity)
        thetas = net.dense_weights()
        teacher = {name: theta.clone().requires_grad_() for name, theta in thetas.items()}
        student = {name: theta.clone().requires_grad_() for name, theta in thetas.items()}
        optimizer = torch.optim.Adam(student.values(), lr=self.transfer_lr, fused=True)
        draws = generator(net, "ntt")
        # without sparsity there is nothing to transfer
        steps = self.transfer_steps if self.sparsity else 0
        supports, twin = self.best(magnitude(net), budget), copy.deepcopy(net)
        with untouched(twin.model):
            for t, images in zip(
                train.rounds(range(steps), "transfer"), self.images(train), strict=False
            ):
                # the last interval trains with the final mask
                if 0 < t <= steps - self.update_every and t % self.update_every == 0:
                    supports = self.best(
                        {name: theta.detach().abs() for name, theta in student.items()}, budget
                    )
                optimizer.zero_grad()
                self.distance(twin, student, teacher, supports, images, draws).backward()
                optimizer.step()
        net.assign(student)
        return supports

    def distance(
        self,
        net: Net,
        student: Thetas,
        teacher: Thetas,
        supports: Supports,
        images: Tensor,
        draws: torch.Generator,
    ) -> Tensor:
        """The loss of the transfer, for one batch."""
        inside = masked(student, supports)
        # with base=init the frozen weights have the teacher's values, not the student's
        others = {
            name: teacher[name].detach() - theta
            for name, theta in masked(teacher, supports).items()
        }
        thetas = (
            {name: theta + others[name] for name, theta in inside.items()}
            if self.base == "init"
            else inside
        )
        far, kernels_far = transfer(net, thetas, teacher, supports, images, draws)
        size = sum(theta.square().sum() for theta in inside.values())
        return (
            far + self.kernel_weight * kernels_far + self.weight_decay / (1 - self.sparsity) * size
        )

    def images(self, train: Train) -> Iterator[Tensor]:
        for epoch in itertools.count():
            for images, _ in train.data.train_batches(self.transfer_batch_size, train.seed, epoch):
                yield images
