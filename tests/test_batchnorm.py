"""BatchNorm in channels_last on a CPU, against torch's own in double precision."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimred.net import Net
from dimred.net.batchnorm import LONGEST, applies_to, exact_statistics, groups_of
from dimred.scores import snip

SHAPES = [(64, 16, 32, 32), (63, 3, 29, 31), (100, 8, 7, 7), (3, 4, 5, 1)]


def images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=draws) * 1.3 + 0.5).to(memory_format=torch.channels_last)


def worked(norm: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Output, gradients of the input, the scale and the shift, and the running statistics."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = norm(x)
    gradients = torch.autograd.grad(out, (x, *norm.parameters()), grad)
    return [out.detach(), *gradients, norm.running_mean, norm.running_var]


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    pairs = zip(found, exact, strict=True)
    return [((one.double() - other).norm() / other.norm()).item() for one, other in pairs]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_computes_what_double_precision_does(
    shape: tuple[int, ...], momentum: float | None
) -> None:
    norm = nn.BatchNorm2d(shape[1], momentum=momentum)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias)
    x, grad, twin = images(shape), images(shape, seed=1), copy.deepcopy(norm).double()
    for _ in range(2):  # the running statistics move twice
        with exact_statistics([norm]):
            out, *gradients, mean, variance = worked(norm, x, grad)
        exact = worked(twin, x.double(), grad.double())
        assert max(errors([out, mean, variance], [exact[0], *exact[-2:]])) < 1e-6
        assert max(errors(gradients, exact[1:-2])) < 2e-5  # by torch's kernel
    assert norm.num_batches_tracked == 2


def test_a_forward_of_its_own_is_left_alone() -> None:
    norm = nn.BatchNorm2d(3)
    assert applies_to(norm)
    norm.forward = norm.forward  # type: ignore[method-assign]
    assert not applies_to(norm)


def test_sums_are_shorter_than_the_kernels_own() -> None:
    x, grad = images((256, 8, 32, 32)), images((256, 8, 32, 32), seed=1)
    norm = nn.BatchNorm2d(8)
    exact = worked(copy.deepcopy(norm).double(), x.double(), grad.double())
    native = errors(worked(copy.deepcopy(norm), x, grad), exact)
    with exact_statistics([norm]):
        found = errors(worked(norm, x, grad), exact)
    assert found[0] < native[0] / 10 and found[1] < native[1]
    assert x[:, 0].numel() / groups_of(x) <= LONGEST


def test_other_layouts_devices_and_precisions_stay_with_torch() -> None:
    x = images((8, 16, 32, 32))
    assert groups_of(x) == 8
    for other in (x.contiguous(), x.double(), x.bfloat16(), x.to("meta"), x[:1, :, :16, :16]):
        assert groups_of(other) == 0


def test_a_norm_is_restored_afterwards() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return x

    norm = nn.BatchNorm2d(4)
    assert applies_to(norm) and not applies_to(Own(4)) and not applies_to(nn.BatchNorm1d(4))
    with pytest.raises(KeyboardInterrupt), exact_statistics([norm]):
        raise KeyboardInterrupt
    assert "forward" not in vars(norm)


def test_a_norm_in_evaluation_mode_uses_its_running_statistics() -> None:
    x, norm = images((64, 16, 32, 32)), nn.BatchNorm2d(16).eval()
    with exact_statistics([norm]):
        torch.testing.assert_close(norm(x), x / (1 + norm.eps) ** 0.5)
    assert torch.equal(norm.running_mean, torch.zeros(16))


def test_scores_use_the_contiguous_layout_whatever_the_recipe_trains_in() -> None:
    seen: list[bool] = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    model[0].register_forward_hook(lambda _, __, out: seen.append(out.is_contiguous()))
    net = Net(model)
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8) % 2
    snip(net, (x, y))
    with net.weights_in_place(channels_last=True) as live:
        F.cross_entropy(live(x), y).backward()
    assert seen == [True, False]
