"""Sparse products on CPUs: the same numbers as dense ones in double precision, and the library of
kernels, which is built, kept and verified."""

from __future__ import annotations

import copy
import logging
import math
import os
import random
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from commands import processes
from torch import Tensor, nn

from dimred.kernels import functions
from dimred.kernels.calls import batch_innermost, is_batch_innermost
from dimred.kernels.library import (
    build,
    cache_folder,
    find_compiler,
    flag_sets,
    is_whole,
    library,
    locked,
    name_of,
)
from dimred.kernels.operators import OPERATORS
from dimred.kernels.plan import Plan
from dimred.net.layouts import BatchInnermost

BATCHES, DENSITIES = (1, 7, 16, 100, 128), (0, 0.01, 0.1, 0.5, 1)


def sparse(
    *shape: int, density: float, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """A weight with random entries and their positions. The first row is full, the second one
    empty, if there are others."""
    kept = torch.rand(shape) < density
    if shape[0] > 2:
        kept[0], kept[1] = True, False
    return torch.randn(shape, dtype=dtype) * kept, kept.view(-1).nonzero().view(-1)


def assert_close(found: Tensor, expected: Tensor) -> None:
    largest = float(expected.detach().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5 * largest)


def assert_same_function(dense, product, x: Tensor, weight: Tensor, support: Tensor) -> None:
    """Outputs and gradients of a sparse product are those of the dense one in float64."""
    bias, psi = torch.randn(len(weight)), weight.view(-1)[support]
    exact = [each.double().requires_grad_() for each in (x, weight, bias)]
    single = [each.clone().requires_grad_() for each in (x, psi, bias)]
    expected, found = dense(*exact), product(*single, Plan.of(support, weight.shape))
    grad = torch.randn(expected.shape)
    expected.backward(grad.double())
    found.backward(grad)
    assert_close(found, expected)
    dx, dweight, dbias = (each.grad for each in exact)
    for one, other in zip(single, (dx, dweight.view(-1)[support], dbias), strict=True):
        assert_close(one.grad, other)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("by", [functions.linear, functions.by_embedding_bag])
def test_a_sparse_linear_layer_is_the_dense_one(by, batch: int) -> None:
    torch.manual_seed(batch)
    for density in DENSITIES:
        for outputs, inputs in ((10, 33), (2, 1), (64, 300)):
            weight, support = sparse(outputs, inputs, density=density)
            assert_same_function(F.linear, by, torch.randn(batch, inputs), weight, support)


def convolutions(count: int) -> Iterator[tuple[list[int], list[int], list[tuple[int, int]]]]:
    """Shapes of images and filters, and stride, padding, dilation, drawn."""
    draw = random.Random(0)
    while count:
        channels, outputs = draw.choice((1, 3, 8)), draw.choice((1, 5, 9))
        height, width = draw.choice((2, 4, 9)), draw.choice((2, 4, 8, 11, 19))
        kernel = [draw.choice((1, 2, 3, 5)), draw.choice((1, 3, 4))]
        stride, padding, dilation = (
            (draw.choice(each), draw.choice(each)) for each in ((1, 2, 3), (0, 1, 2), (1, 1, 2))
        )
        if dilation[0] * (kernel[0] - 1) >= height + 2 * padding[0]:
            continue
        if dilation[1] * (kernel[1] - 1) >= width + 2 * padding[1]:
            continue
        count -= 1
        batch = draw.choice(BATCHES[:4])
        yield (
            [batch, channels, height, width],
            [outputs, channels, *kernel],
            [stride, padding, dilation],
        )


def test_a_sparse_convolution_is_the_dense_one() -> None:
    torch.manual_seed(0)
    for i, (images, filters, how) in enumerate(convolutions(80)):
        weight, support = sparse(*filters, density=DENSITIES[i % len(DENSITIES)])
        assert_same_function(
            lambda *given, how=how: F.conv2d(*given, *how),
            lambda *given, how=how: functions.conv2d(*given, *how),
            torch.randn(images),
            weight,
            support,
        )


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 12])
def test_threads_share_channels_and_rows(channels: int, threads: int) -> None:
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    weight, support = sparse(9, channels, 3, 3, density=0.5)
    x = torch.randn(100, channels, 12, 11)  # enough for all of them
    try:
        assert_same_function(F.conv2d, functions.conv2d, x, weight, support)
        by_rows = x.flatten(2).flatten(0, 1)
        weight, support = sparse(20, 132, density=0.5)
        assert_same_function(F.linear, functions.linear, by_rows, weight, support)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (7, 5, 3, 3), (33, 2, 9, 8), (40, 3)])
def test_batch_norm_of_the_kernels_layout_is_that_of_pytorch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    kind = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
    x, norm = 3 + 2 * torch.randn(shape), kind(shape[1])
    exact = copy.deepcopy(norm).double()
    given, exactly = batch_innermost(x).requires_grad_(), x.double().requires_grad_()
    grad = torch.randn(shape)
    with BatchInnermost():
        found = norm(given)
    assert is_batch_innermost(found)
    expected = exact(exactly)
    found.backward(grad)
    expected.backward(grad.double())
    pairs = {"out": (found, expected), "x": (given.grad, exactly.grad)}
    pairs |= {name: (p.grad, exact.get_parameter(name).grad) for name, p in norm.named_parameters()}
    pairs |= {name: (b, exact.get_buffer(name)) for name, b in norm.named_buffers()}
    for one, other in pairs.values():
        torch.testing.assert_close(one.to(other), other, rtol=1e-5, atol=2e-5)


POOLINGS: list[nn.Module] = [
    *(nn.MaxPool2d(2), nn.MaxPool2d(3, 2, padding=1), nn.AdaptiveMaxPool2d(2)),
    *(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.BatchNorm2d(5).eval(), nn.BatchNorm2d(5)),
]


@pytest.mark.parametrize("module", POOLINGS, ids=lambda module: type(module).__name__)
def test_poolings_and_norms_keep_the_kernels_layout(module: nn.Module) -> None:
    """One of them in another layout makes those around it up to 30 times slower."""
    x = torch.randn(3, 5, 8, 6, dtype=torch.float64, requires_grad=True)
    given = batch_innermost(x.detach()).requires_grad_()
    expected = copy.deepcopy(module).double()(x)
    with BatchInnermost():
        found = module.double()(given)
    torch.testing.assert_close(found, expected)
    expected.square().sum().backward()
    found.square().sum().backward()
    torch.testing.assert_close(given.grad, x.grad)
    assert is_batch_innermost(found) and is_batch_innermost(given.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_activations_come_into_the_kernels_layout(dtype: torch.dtype) -> None:
    for shape in ((1, 9), (7, 33), (8, 1), (17, 3, 4, 5), (0, 5), (24, 64)):
        contiguous = torch.arange(math.prod(shape)).view(shape).to(dtype)
        for x in (contiguous, torch.cat([contiguous, contiguous], 1)[:, ::2]):
            found = batch_innermost(x)
            assert torch.equal(found, x) and is_batch_innermost(found)


RANDOM: list[Callable[[Tensor], Tensor]] = [
    *(nn.Dropout(0.4), nn.Dropout(0.4, inplace=True), nn.AlphaDropout(0.4)),
    *(torch.rand_like, lambda x: x + torch.randn_like(x), nn.Dropout(0.4).eval()),
]


def as_linear_leaves_it(x: Tensor) -> Tensor:
    """In memory, features are outermost."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1)


@pytest.mark.parametrize("random", RANDOM)
def test_random_numbers_are_those_of_dense_products(random: Callable[[Tensor], Tensor]) -> None:
    images, rows = torch.randn(4, 5, 6, 3, dtype=torch.float64), torch.randn(5, 40)
    cases = [
        (images, batch_innermost(images), False),
        (images.to(memory_format=torch.channels_last), batch_innermost(images), True),
        (rows, batch_innermost(rows), True),
        *((x, as_linear_leaves_it(x), True) for x in (images, images[0])),
    ]
    for *layouts, channels_last in cases:
        results = []
        for x in layouts:
            given = x.detach().clone().requires_grad_()
            torch.manual_seed(0)
            with BatchInnermost(channels_last):
                out = random(given + 0)
            (out.square().sum() + given.sum()).backward()
            assert given.grad is not None
            results.append([out, given.grad])
        for dense, sparse in zip(*results, strict=True):
            torch.testing.assert_close(sparse, dense, rtol=1e-6, atol=1e-7)


def test_activations_of_more_dimensions_keep_them() -> None:
    weight, support = sparse(5, 6, density=0.5)
    x = torch.randn(2, 3, 6)
    found = functions.linear(x, weight.view(-1)[support], None, Plan.of(support, weight.shape))
    torch.testing.assert_close(found, F.linear(x, weight))
    found = functions.linear(
        x[0, 0], weight.view(-1)[support], None, Plan.of(support, weight.shape)
    )
    torch.testing.assert_close(found, F.linear(x[0, 0], weight))


def double(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def linear_arguments() -> tuple:
    _, support = sparse(4, 6, density=0.4)
    return double(3, 6), double(len(support)), double(4), Plan.of(support, torch.Size((4, 6)))


def conv2d_arguments() -> tuple:
    shape = torch.Size((3, 2, 3, 3))
    _, support = sparse(*shape, density=0.4)
    return double(2, 2, 5, 4), double(len(support)), double(3), Plan.of(support, shape)


HOW = ((2, 1), (1, 0), (1, 1))


def test_gradients_are_those_of_finite_differences() -> None:
    *given, plan = linear_arguments()
    assert torch.autograd.gradcheck(lambda *x: functions.linear(*x, plan), given)
    *given, plan = conv2d_arguments()
    assert torch.autograd.gradcheck(lambda *x: functions.conv2d(*x, plan, *HOW), given)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # by opcheck itself
def test_operators_of_pytorch_keep_its_rules() -> None:
    *given, plan = linear_arguments()
    torch.library.opcheck(OPERATORS.sparse_linear.default, (*given, plan.numbers, 4))
    *given, plan = conv2d_arguments()
    given = (*given, plan.numbers, list(plan.shape), *map(list, HOW))
    torch.library.opcheck(OPERATORS.sparse_conv2d.default, given)


def test_a_compiler_sees_the_operators() -> None:
    *given, plan = linear_arguments()
    operator = OPERATORS.sparse_linear
    compiled = torch.compile(operator, backend="aot_eager", fullgraph=True)
    plain, through_compiler = (
        torch.autograd.grad(function(*given, plan.numbers, 4).square().sum(), given)
        for function in (operator, compiled)
    )
    for one, other in zip(plain, through_compiler, strict=True):
        assert torch.equal(one, other)


def test_second_derivatives_are_refused() -> None:
    *given, plan = linear_arguments()
    out = functions.linear(*given, plan).sum()
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(out, given, create_graph=True)


# -- the library --------------------
def multiply(environment: dict[str, str], log: Path) -> None:
    """(1, 10) by ((0, 2), (3, 0)), in a process of its own."""
    os.environ.update(environment)
    logging.basicConfig(level=logging.INFO, format="%(message)s", filename=log)
    plan = Plan.of(torch.tensor([1, 2]), torch.Size((2, 2)))
    found = functions.linear(torch.tensor([[1.0, 10.0]]), torch.tensor([2.0, 3.0]), None, plan)
    assert found.tolist() == [[20.0, 3.0]]


def start(log: Path, **environment: str) -> BaseProcess:
    process = processes.Process(target=multiply, args=(environment, log))
    process.start()
    return process


def logged(log: Path, **environment: str) -> str:
    """What a process logs that multiplies."""
    process = start(log, **environment)
    process.join(100)
    assert process.exitcode == 0
    return log.read_text()


def test_without_a_compiler_pytorch_computes(tmp_path: Path) -> None:
    said = logged(tmp_path / "log", PATH="")
    assert said.count("\n") == 1 and "none of the compilers c++, g++, clang++" in said


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = logged(tmp_path / "log", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert said.count("\n") == 1 and "Not a directory" in said


def test_a_damaged_library_is_built_again_by_one_of_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = library()
    assert loaded
    whole = Path(str(loaded._name))
    compiler = tmp_path / "c++"  # which has this library ready: to compile it takes seconds
    compiler.write_text(f'#!/bin/bash\n[ "$1" = --version ] || cp {whole} "${{@: -1}}"\n')
    compiler.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder()
    path = folder / f"{name_of(find_compiler(), next(flag_sets()))}.so"
    with locked(folder):
        assert build(find_compiler(), next(flag_sets()), path) and is_whole(path)
    content = bytearray(whole.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not is_whole(path)
    own = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path)}
    logs = [tmp_path / "one", tmp_path / "other"]
    for process in [start(log, **own) for log in logs]:
        process.join(100)
        assert process.exitcode == 0
    assert sorted("building" in log.read_text() for log in logs) == [False, True]
    assert is_whole(path) and not [*folder.glob(".*.so*")]


def test_flags_that_a_compiler_lacks_are_no_error(tmp_path: Path) -> None:
    assert not build(find_compiler(), ("-unknown",), tmp_path / "kernels.so")
    assert not [*tmp_path.iterdir()]
