"""Random numbers of a seed: the same on every machine and in every version, with the right
distribution."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import compose
from scipy import special, stats
from torch import nn

from dimred.methods.subspaces.intrinsic_dimension import projections
from dimred.net import Net
from dimred.net import projections as made
from dimred.net.projections import project
from dimred.net.seeded import Draw, Drawing, centred, log, normal
from dimred.runs.nets import build_net

MASK = 2**64 - 1


def philox(seed: int, stream: int) -> Iterator[int]:
    """Philox4x64-10, from the paper. The first block's counter is 1, as in numpy and Random123's
    engine."""
    block = 0
    while True:
        block += 1
        x, key = [block & MASK, block >> 64, 0, 0], [seed, stream]
        for _ in range(10):
            high0, low0 = divmod(x[0] * 0xD2E7470EE14C6C93, 2**64)
            high1, low1 = divmod(x[2] * 0xCA5A826395121157, 2**64)
            x = [high1 ^ x[1] ^ key[0], low1, high0 ^ x[3] ^ key[1], low0]
            key = [(key[0] + 0x9E3779B97F4A7C15) & MASK, (key[1] + 0xBB67AE8584CAA73B) & MASK]
        yield from x


def test_the_words_are_philox_of_the_paper() -> None:
    for seed, stream in ((0, 0), (2**63 - 1, 3), (7, 2**40)):
        words = philox(seed, stream)
        assert np.random.Philox(key=[seed, stream]).random_raw(9).tolist() == [
            next(words) for _ in range(9)
        ]


def test_numbers_are_words_by_basic_arithmetic_alone() -> None:
    """The same in plain Python, whose floats are IEEE 754 doubles; AS 241 is trusted to 15 digits
    from scipy."""
    words = philox(5, 2)
    u = [(2 * (next(words) >> 12) + 1 - 2**52) / 2**53 for _ in range(50)]
    assert centred(np.random.Philox(key=[5, 2]).random_raw(50)).tolist() == u
    as_float32 = [struct.unpack("f", struct.pack("f", -3 + 5 * (each + 0.5)))[0] for each in u]
    assert Draw(5, 2, "uniform", -3, 2).values(50).tolist() == as_float32
    assert Draw(5, 2, "normal", 1, 2).values(50) == pytest.approx(
        [1 + 2 * special.ndtri(each + 0.5) for each in u]
    )


GOLDEN = {
    "uniform": [
        "0x1.5330c80000000p-2",
        "0x1.72fd380000000p+0",
        "0x1.0ddd3e0000000p-1",
        "0x1.4d87680000000p-3",
        "-0x1.f717880000000p-2",
        "0x1.c497e00000000p+0",
    ],
    "normal": [
        "-0x1.486f8e0000000p+0",
        "0x1.9b57760000000p-1",
        "-0x1.e8d4680000000p-1",
        "-0x1.9231220000000p+0",
        "-0x1.74b48e0000000p+1",
        "0x1.d8a18a0000000p+0",
    ],
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_numbers_never_change(kind: str) -> None:
    values = Draw(42, 1, kind, -1.0, 2.0).values(40_000)  # type: ignore[arg-type]
    assert [float(v).hex() for v in values[[0, 1, 2, 3, 32768, 39_999]]] == GOLDEN[kind]


def test_quantiles_and_logarithms_are_right_to_the_last_digits() -> None:
    u = centred(np.random.Philox(key=[1, 1]).random_raw(200_000))
    assert np.abs(normal(u) / special.ndtri(u + 0.5) - 1).max() < 4e-15
    deep = 2.0 ** -np.arange(3, 53)
    assert np.abs(normal(deep - 0.5) / special.ndtri(deep) - 1).max() < 4e-15
    assert (normal(-u) == -normal(u)).all()
    x = np.concatenate([u + 0.5, deep, [0.5, 1.0, 3.0, 1e300]])
    assert (np.abs(log(x) - np.log(x)) <= 1e-15 * np.abs(np.log(x))).all()


@pytest.mark.parametrize(
    ("kind", "law"), [("uniform", stats.uniform(-1, 3)), ("normal", stats.norm(-1, 2))]
)
def test_numbers_have_their_distribution(kind: str, law: stats.rv_continuous) -> None:
    values = Draw(3, 0, kind, -1.0, 2.0).values(500_000)  # type: ignore[arg-type]
    assert stats.kstest(values, law.cdf).pvalue > 1e-3
    assert values.mean() == pytest.approx(law.mean(), abs=4 * law.std() / math.sqrt(len(values)))
    assert values.std() == pytest.approx(law.std(), rel=0.005)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.006
    other = Draw(3, 1, kind, -1.0, 2.0).values(500_000)  # type: ignore[arg-type]
    assert abs(np.corrcoef(values, other)[0, 1]) < 0.006


def test_uniform_numbers_stay_below_their_upper_end() -> None:
    values = Draw(0, 0, "uniform", 0.0, 1.0).values(2**22)
    assert values.max() < 1 and values.min() > 0
    assert Draw(0, 0, "uniform", 1.0, float(np.nextafter(np.float32(1), 2))).values(1000).max() == 1


def test_long_and_short_tensors_begin_alike() -> None:
    draw = Draw(1, 2, "normal", 0, 1)
    assert (draw.values(100_000)[:40_000] == draw.values(40_000)).all()


# -- projections --------------------
SIZES = {"a": 600, "b": 210, "c": 14}
#: the last two numbers of P z in each weight that are not zero, z = (0, 1, ..., 8) / 9
MOVED = {
    "dense": [
        "0x1.c71bf6c062e7ap-7",
        "-0x1.0e45ed4e1788ep-7",
        "0x1.4c172a303c2cdp-6",
        "0x1.16ed86a58513ap-5",
        "-0x1.24d4e0ae89429p-6",
        "-0x1.1ccf76cbd61efp-4",
    ],
    "sparse": [
        "-0x1.fb12732fe4f60p-5",
        "0x1.fb12732fe4f60p-4",
        "0x1.27cac331458f8p-3",
        "-0x1.520c4cca98a40p-5",
        "0x1.520c4cca98a40p-6",
        "0x1.a68f5ffd3ecd0p-4",
    ],
    "fastfood": [
        "-0x1.1a0459e9de33cp-6",
        "-0x1.2acd60d734f7cp-7",
        "0x1.aeb8137111a33p-7",
        "0x1.952a6fdafa030p-9",
        "-0x1.87c098fc7d3e0p-11",
        "0x1.27494099441f5p-4",
    ],
}


@pytest.mark.parametrize("kind", MOVED)
def test_projections_never_change(kind: Any) -> None:
    moves = project(kind, 42, SIZES, np.arange(9) / 9)
    assert [float(v).hex() for by in moves.values() for v in by[np.flatnonzero(by)[-2:]]] == MOVED[
        kind
    ]


@pytest.mark.parametrize("block", [2**22, 50])
@pytest.mark.parametrize("kind", ["dense", "sparse", "fastfood"])
def test_what_is_written_moves_weights_as_training_does(
    kind: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "BLOCK", block)
    net = Net(
        nn.Sequential(*(nn.Linear(size, 1, bias=False) for size in SIZES.values())).double(), seed=5
    )
    z = nn.Parameter(torch.randn(9, dtype=torch.float64))
    maps = projections(net, z, kind)
    moves = project(kind, 5, dict(zip(maps, SIZES.values(), strict=True)), z.detach().numpy())
    for name, each in maps.items():
        np.testing.assert_allclose(
            moves[name], each.project(z).detach().numpy(), rtol=1e-9, atol=1e-12
        )


# -- of models --------------------
def resnet(seed: int = 0, **knobs: str) -> Net:
    return build_net(
        compose("model=resnet20", f"seed={seed}", *(f"model.{k}={v}" for k, v in knobs.items())),
        (3, 8, 8),
        10,
    )


@pytest.mark.parametrize("init", ["kaiming_normal", "xavier_uniform", "torch_default"])
def test_every_weight_of_a_model_is_its_draw(init: str) -> None:
    net = resnet(init=init)
    assert set(net.draws) >= set(net.weights)
    for name, w in net.weights.items():
        assert (net.draws[name].values(w.size) == w.dense().numpy()).all(), name
    assert len({(draw.seed, draw.stream) for draw in net.draws.values()}) == len(net.draws)


def test_models_are_a_function_of_the_seed_whatever_torch_has_drawn_before() -> None:
    first = resnet().initial()
    torch.rand(5)
    again, other = resnet().initial(), resnet(seed=1).initial()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv.weight"], other["conv.weight"])


def test_building_a_model_leaves_torchs_generator_alone() -> None:
    before = torch.get_rng_state()
    resnet()
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_drawn_otherwise_is_as_torch_draws_it() -> None:
    draws = torch.Generator().manual_seed(1)
    expected = torch.empty(4).normal_(generator=torch.Generator().manual_seed(1))
    with Drawing(0) as drawing:
        given, of_shape = torch.empty(4).normal_(generator=draws), torch.rand(3)
        linear, double = nn.Linear(2, 3), torch.empty(2, 3, dtype=torch.float64).t().uniform_(2, 3)
    assert torch.equal(given, expected) and of_shape.shape == (3,)
    assert set(drawing.of(linear)) == {"weight", "bias"}
    assert double.shape == (3, 2) and double.min() >= 2 and double.max() < 3


def test_truncated_normals_follow_their_draws() -> None:
    """Rejected numbers are drawn again, by the same generator: the same on every machine, but no
    longer one draw."""

    def truncated(seed: int) -> torch.Tensor:
        with Drawing(seed):
            return nn.init.trunc_normal_(torch.empty(5000), std=0.5, a=-0.6, b=0.6)

    one = truncated(0)
    assert torch.equal(one, truncated(0)) and not torch.equal(one, truncated(1))
    assert one.abs().max() <= 0.6 and one.unique().numel() > 4900
