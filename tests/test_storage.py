"""Storage: codes can be decoded and have the length of their formula, and sizes are the minimal
ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import compose, result_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dimred.net import Net
from dimred.net.transforms import Masked
from dimred.runs.nets import build_net
from dimred.scores import random_scores
from dimred.select.topk import topk
from dimred.storage.codes import CODES, bound, rice, width
from dimred.storage.sizes import smallest, storage
from dimred.storage.stored import StoredTensor, array, from_seed, masked, pruned, tensors


def some(size: int, count: int, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(size, count, replace=False))


def lenet(*overrides: str, seed: int = 0) -> Net:
    return build_net(compose("model=lenet300", f"seed={seed}", *overrides), (1, 8, 8), 10)


# -- codes --------------------
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((7, 13), 1),
        ((7, 13), 30),
        ((5,), 2),
        ((300, 784), 2352),
        ((20, 3, 5, 5), 700),
        ((2, 70_000), 9),
        ((300, 2), 599),
        ((1, 1), 1),
    ],
)
def test_positions_can_be_read_from_their_code(
    code: str, shape: tuple[int, ...], count: int
) -> None:
    if code == "entropy" and count == math.prod(shape):
        return  # all of them have no positions
    encode, decode = CODES[code]
    positions = some(math.prod(shape), count)
    assert decode(encode(positions, shape), count, shape).tolist() == positions.tolist()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=1, max_size=300).filter(any))
def test_any_mask_can_be_read_from_its_code(mask: list[bool]) -> None:
    positions = np.flatnonzero(mask)
    for name, (encode, decode) in CODES.items():
        if name != "entropy" or not all(mask):
            assert (
                decode(encode(positions, (len(mask),)), len(positions), (len(mask),)).tolist()
                == positions.tolist()
            )


def test_codes_have_the_length_of_their_formula() -> None:
    (rows, columns), count = (300, 784), 2352
    shape, positions = (rows, columns), some(rows * columns, count)
    written = {name: len(encode(positions, shape)) for name, (encode, _) in CODES.items()}
    assert written["bitmap"] == rows * columns / 8
    assert written["csr"] == (rows + 1) * 2 + count * 2
    gaps = np.diff(positions, prepend=-1) - 1
    k = rice(gaps)
    assert k == round(
        math.log2(math.log(2) * rows * columns / count)
    )  # the best for geometric gaps
    assert written["delta"] == 1 + math.ceil(count * k / 8) + math.ceil(
        (count + (gaps >> k).sum()) / 8
    )


@pytest.mark.parametrize("density", [0.005, 0.02, 0.1, 0.5])
def test_entropy_coding_nearly_reaches_the_bound_and_rice_codes_come_close(density: float) -> None:
    size = 235_200
    positions = some(size, round(density * size))
    least = bound(len(positions), size)
    for name, slack in (("entropy", 1.005), ("delta", 1.02)):
        assert least * 0.999 < len(CODES[name][0](positions, (300, 784))) < slack * least


def test_the_bound_is_the_entropy() -> None:
    assert bound(1, 2) == 2 / 8 and bound(0, 9) == bound(9, 9) == 0
    assert bound(235, 23_500) == pytest.approx(23_500 * 0.0807931 / 8, rel=1e-5)


def test_integers_are_as_narrow_as_they_can_be() -> None:
    assert [width(n).itemsize for n in (0, 255, 256, 65_535, 65_536, 2**32)] == [1, 1, 2, 2, 4, 8]


# -- stored tensors --------------------
def of(net: Net, name: str = "fc1.weight") -> tuple[np.ndarray, StoredTensor]:
    value = tensors(net)[name]
    return value, from_seed(value, net.draws[name], pruned(value))


def test_an_initial_weight_is_stored_as_its_draw() -> None:
    value, stored = of(lenet())
    assert (
        stored.count == 0
        and stored.base == lenet().draws["fc1.weight"]
        and (stored.tensor() == value).all()
    )


@pytest.mark.parametrize("base", ["zero", "init"])
def test_a_weight_is_its_trained_entries_and_its_base(base: str) -> None:
    net = lenet()
    supports = topk(random_scores(net), net.total // 10)
    net.keep(supports, base=base)  # type: ignore[arg-type]
    for w in net.weights.values():
        w.psi.data += 1
    value, stored = of(net)
    assert (
        stored.positions is not None
        and stored.positions.tolist() == supports["fc1.weight"].tolist()
    )  # type: ignore
    assert (stored.base == 0.0) == (base == "zero") and (stored.tensor() == value).all()


@pytest.mark.parametrize("scale", [1.0, math.sqrt(2), 0.3])
@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("flips", [False, True])
def test_a_mask_of_untrained_weights_is_recognised_to_the_bit(
    scale: float, signs: bool, flips: bool
) -> None:
    net = lenet()
    theta, score = net.dense_weights()["fc1.weight"], random_scores(net)["fc1.weight"]
    mask = score.sign() * (score.abs() > 0.5) if flips else (score > 0.5).float()
    value = array(scale * (theta.sign() * math.sqrt(2 / 64) if signs else theta) * mask)
    stored = from_seed(value, net.draws["fc1.weight"], pruned(value))
    assert (
        stored.scale
        and stored.signs == signs
        and len(stored.values) == (stored.count if flips else 0)
    )
    assert (stored.tensor() == value).all()


def test_a_weight_off_by_one_bit_is_no_mask_of_untrained_weights() -> None:
    net = lenet()
    draw, value = (
        net.draws["fc1.weight"],
        tensors(net)["fc1.weight"] * (random_scores(net)["fc1.weight"] > 0).numpy(),
    )
    assert masked(value, draw, draw.values(value.size))
    at = tuple(np.argwhere(value)[-1])
    value[at] = np.nextafter(value[at], np.float32(9))
    assert not masked(value, draw, draw.values(value.size))
    stored = from_seed(value, draw, pruned(value))
    assert (stored.tensor() == value).all() and stored.scale is None


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((3, 4), np.float32),
        np.ones(5, np.float32),
        np.array(7),
        np.zeros((0, 3)),
        np.array([[np.nan, 0, 1]], np.float32),
        np.arange(6).reshape(2, 3),
        np.array([True, False]),
    ],
)
def test_any_tensor_can_be_stored(value: np.ndarray) -> None:
    stored = from_seed(value, None, pruned(value))
    np.testing.assert_array_equal(stored.tensor(), value)
    assert stored.tensor().dtype == value.dtype


# -- nets --------------------
def test_a_dense_net_takes_four_bytes_a_number_in_every_form() -> None:
    net = lenet()
    for w in net.weights.values():
        w.psi.data += 1
    sizes = storage(net, 0)
    parameters = sum(p.numel() for p in net.model.parameters())
    assert sizes["dense"] == 4 * parameters and sizes["dense_half"] == 2 * parameters
    assert smallest(sizes) == 4 * net.total  # its biases are zero
    assert not any("seed" in name for name in sizes)


def test_a_pruned_net_takes_its_nonzero_numbers_and_their_positions() -> None:
    net = lenet()
    net.keep(topk(random_scores(net), net.total // 50))
    for w in net.weights.values():
        w.psi.data += 1  # else all of them are a mask of initial weights
    sizes, nonzero = storage(net, 0), net.total // 50
    shapes = [w.param.shape for w in net.weights.values()]
    assert sizes["bitmap"] == 4 * nonzero + sum(math.ceil(math.prod(shape) / 8) for shape in shapes)
    assert sizes["csr"] == 4 * nonzero + sum(
        (rows + 1) * width(w.dim).itemsize + w.dim * width(columns - 1).itemsize
        for (rows, columns), w in zip(shapes, net.weights.values(), strict=True)
    )
    least = 4 * nonzero + sum(bound(w.dim, w.size) for w in net.weights.values())
    assert least < sizes["entropy"] < sizes["delta"] + 40 < least + 100
    assert smallest(sizes) == min(sizes["entropy"], sizes["delta"])
    assert sizes["delta"] - sizes["delta_half"] == 2 * nonzero


def test_a_frozen_net_takes_a_seed_more_than_a_pruned_one() -> None:
    nets = {}
    for base in ("zero", "init"):
        net = lenet()
        net.keep(topk(random_scores(net), net.total // 50), base=base)  # type: ignore[arg-type]
        for w in net.weights.values():
            w.psi.data += 1
        nets[base] = storage(net, 0)
    for code in CODES:
        assert nets["init"][f"{code}_seed"] == nets["zero"][code] + 4
    assert not any("seed" in name for name in nets["zero"])
    assert nets["init"]["delta"] > 4 * 50_000  # without the seed it is dense


def test_large_seeds_take_eight_bytes() -> None:
    assert storage(lenet(), 0)["seed"] == 4
    assert storage(lenet(seed=2**40), 2**40)["seed"] == 8


def test_weights_of_another_origin_are_stored() -> None:
    net = lenet()
    twin = build_net(compose("model=lenet300", "seed=1"), (1, 8, 8), 10)
    net.model.load_state_dict(
        twin.state_dict()
    )  # as pretrained weights are: the draws are not what is there
    assert "seed" not in storage(net, 0) and smallest(storage(net, 0)) == 4 * net.total


def test_norms_and_running_statistics_count() -> None:
    net = build_net(compose("model=resnet20"), (1, 8, 8), 10)
    net(torch.rand(9, 1, 8, 8))
    channels, norms = 7 * (16 + 32 + 64), 3 * 7
    assert storage(net, 0)["dense"] == sum(
        v.numel() * v.element_size() for v in net.state_dict().values()
    )
    assert storage(net, 0)["seed"] == 4 + 2 * 4 * channels + norms * (
        8 + 4
    )  # statistics; a count, a scale of one


def test_transforms_are_stored_as_the_weights_that_they_give() -> None:
    net = lenet()
    w = net.weights["fc1.weight"]
    gate = Masked(w.param)
    gate.keep(torch.arange(10))
    net.add_transforms({"fc1.weight": gate})
    assert net.effective_weights()["fc1.weight"].count_nonzero() == 10
    value, stored = of(net)
    assert stored.count == 10 and (stored.tensor() == value).all()


def test_filters_in_a_basis_are_stored_as_coefficients() -> None:
    net = build_net(
        compose("model=conv2", "basis=layer", "basis.init=random_orthonormal"), (1, 8, 8), 10
    )
    net.keep(topk(random_scores(net), net.total // 50))
    sizes = storage(net, 0)
    assert sizes["bitmap"] < 4 * (net.total // 50) + net.total / 8 + 2 * 81 * 4 + 4 * 10 + 40
    assert sizes["dense"] == 4 * sum(p.numel() for p in net.model.parameters())


@pytest.mark.parametrize(
    ("overrides", "most"),
    [
        (["method=freezenet", "sparsity=0.95"], 4 * 2510 + 0.3 * 50_200 / 8 + 1640 + 100),
        (["method=edge_popup", "sparsity=0.5"], 50_200 / 8 + 30),
        (["method=signed_supermask", "sparsity=0.5"], 50_200 / 8 * 1.5 + 30),
        (["method=last_layer"], 4 + 4 * 1010),
        (["method=intrinsic_dimension", "method.dim=50"], 4 + 4 * 50),
    ],
)
def test_runs_with_weights_of_the_seed_are_smallest_in_that_form(
    overrides: list[str], most: float, train: Callable[..., Path]
) -> None:
    result = result_of(train("recipe.steps=5", *overrides))
    assert (
        result["storage_bytes"]
        == min(n for form, n in result["storage"].items() if form.endswith("seed"))
        <= most
    )
    assert result["storage"]["dense"] == 202_440


def test_millions_of_weights_take_seconds() -> None:
    net = build_net(compose("model=vgg11"), (3, 32, 32), 10)  # 9.2 million
    net.keep(topk(random_scores(net), net.total // 10), base="init")
    start = time.process_time()
    storage(net, 0)
    assert time.process_time() - start < 10
