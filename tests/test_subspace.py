"""Subspaces: projections keep lengths, only z trains, lines pass through their ends and are
evaluated in the middle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy import set_up, watch

from dimred.errors import UserError
from dimred.methods.subspaces import intrinsic_dimension as subspace
from dimred.methods.subspaces.intrinsic_dimension import (
    DenseProjection,
    Fastfood,
    IntrinsicDimension,
    Offset,
    Sparse,
    hadamard,
    projections,
)
from dimred.methods.subspaces.learned import Corners, Penalised, Subspace, average_statistics
from dimred.net import Net
from dimred.net import projections as made
from dimred.training.loop import Train

KINDS = ["dense", "sparse", "fastfood"]


def wide(seed: int = 0) -> Net:
    """Weights of sizes that are no powers of two, one of them smaller than z."""
    torch.manual_seed(0)
    return Net(
        nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 7), nn.Linear(7, 2)).double(), seed=seed
    )


def matrix(net: Net, d: int, kind: str) -> Tensor:
    """P (D, d), read off column by column."""
    maps = projections(net, nn.Parameter(torch.zeros(d, dtype=torch.float64)), kind)
    with torch.no_grad():
        return torch.stack(
            [
                torch.cat([each.project(e) for each in maps.values()])
                for e in torch.eye(d, dtype=torch.float64)
            ],
            1,
        )


# -- intrinsic dimension -------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [5, 40])
def test_projections_keep_lengths_on_average(kind: str, d: int) -> None:
    x = torch.randn(d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def ratio(seed: int) -> Tensor:
        parts = projections(wide(seed), nn.Parameter(torch.zeros_like(x)), kind).values()
        return (
            torch.stack([each.project(x).square().sum() for each in parts]).sum() / x.square().sum()
        )

    ratios = torch.stack([ratio(seed) for seed in range(60)]).detach()
    assert (
        ratios.mean() == pytest.approx(1, abs=4 * float(ratios.std()) / math.sqrt(60))
        and ratios.std() < 0.4
    )


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_columns_have_length_one(kind: str) -> None:
    assert torch.allclose(matrix(wide(), 9, kind).norm(dim=0), torch.ones(9, dtype=torch.float64))


def test_sparse_columns_have_about_sqrt_of_all_entries_all_equal_but_for_their_signs() -> None:
    p = matrix(wide(), 9, "sparse")
    n = round(math.sqrt(len(p)))  # of 824
    assert (p != 0).sum(0).tolist() == [n] * 9 and torch.allclose(
        p[p != 0].abs(), p.new_tensor(1 / math.sqrt(n))
    )
    assert 0.3 < (p[p != 0] > 0).double().mean() < 0.7


def test_fastfood_is_its_product_of_matrices() -> None:
    z = nn.Parameter(torch.randn(5, dtype=torch.float64))
    part = Fastfood(z, 11, made.fastfood(0, 0, 11, 100, 5))
    h = torch.tensor(
        [[(-1.0) ** (i & j).bit_count() for j in range(16)] for i in range(16)], dtype=torch.float64
    )
    b, pi, g = part.signs.diag(), torch.eye(16, dtype=torch.float64)[part.order], part.gauss.diag()
    assert part.gauss.square().sum() == pytest.approx(1 / 100)
    assert torch.allclose(part.project(z), (h @ g @ pi @ h @ b)[:11, :5] @ z)


@pytest.mark.parametrize("bits", [0, 1, 3, 6, 7, 12, 13])
def test_the_fast_hadamard_transform_is_that_of_sylvester_and_its_own_inverse(bits: int) -> None:
    x = torch.randn(1 << bits, dtype=torch.float64)
    slow = x.view([2] * bits)
    for axis in range(bits):
        a, b = slow.unbind(axis)
        slow = torch.stack((a + b, a - b), axis)
    assert torch.allclose(hadamard(x), slow.reshape(-1)) and torch.allclose(
        hadamard(hadamard(x)), x * (1 << bits)
    )


def test_the_fast_hadamard_transform_of_a_known_vector() -> None:
    assert hadamard(torch.tensor([1.0, 0, 1, 0, 0, 1, 1, 0])).tolist() == [4, 2, 0, -2, 0, 2, 0, 2]


def test_a_sparse_projection_adds_up_in_order_by_several_threads() -> None:
    draws, z = np.random.default_rng(0), nn.Parameter(torch.randn(50))
    rows, columns = draws.integers(500, size=100_000), draws.integers(50, size=100_000)
    values, along = draws.standard_normal(100_000), torch.randn(500)
    part = Sparse(z, 500, *map(torch.from_numpy, (rows, columns, values)))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    moved = part.project(z)
    moved.backward(along)
    torch.set_num_threads(threads)
    forward, backward = np.zeros(500), np.zeros(50)
    np.add.at(forward, rows, z.detach().double().numpy()[columns] * values)
    np.add.at(backward, columns, along.double().numpy()[rows] * values)
    assert z.grad is not None
    assert torch.equal(moved, torch.from_numpy(forward).float())
    assert torch.equal(z.grad, torch.from_numpy(backward).float())


@pytest.mark.parametrize("kind", KINDS)
def test_at_z_0_the_net_has_its_initial_weights_and_dz_is_the_projected_gradient(kind: str) -> None:
    net = wide()
    z = nn.Parameter(torch.zeros(6, dtype=torch.float64))
    maps, p = projections(net, z, kind), matrix(net, 6, kind)
    net.freeze(dict.fromkeys(net.weights))
    theta, images = net.dense_weights(), torch.randn(4, 20, dtype=torch.float64)
    before = net(images)
    net.add_transforms(maps)
    assert torch.equal(net(images), before)
    net(images).square().sum().backward()
    plain = wide()
    plain(images).square().sum().backward()
    dense = torch.cat([w.psi.grad for w in plain.weights.values()])
    assert z.grad is not None and torch.allclose(z.grad, p.T @ dense)
    assert all(torch.equal(net.initial()[name], value) for name, value in theta.items())


def test_a_dense_projection_that_is_made_again_in_chunks_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(made, "BLOCK", 50)
    parts: list[DenseProjection] = []
    for kept in (2**20, 0):
        monkeypatch.setattr(subspace, "KEPT", kept)
        z = nn.Parameter(torch.ones(6, dtype=torch.float64))
        parts.append(projections(wide(), z, "dense")["0.weight"])  # type: ignore[arg-type]
        parts[-1].project(z).square().sum().backward()
    held, anew = parts
    assert held.rows is not None and anew.rows is None
    assert torch.allclose(held.project(held.z), anew.project(anew.z)) and torch.allclose(
        held.z.grad, anew.z.grad
    )


@pytest.mark.parametrize("kind", KINDS)
def test_intrinsic_dimension_trains_d_numbers_and_leaves_a_plain_net(kind: Any) -> None:
    net, train = set_up()
    seen: list[tuple[int, int]] = []

    def see(t: int) -> None:
        seen.append((net.dim, sum(p.numel() for p in net.parameters().values() if p.requires_grad)))

    watch(train, see)
    before = train.evaluate("train")[0]
    IntrinsicDimension(dim=20, projection=kind, lr_scale=10.0, train_biases_and_norms=False).run(
        net, train
    )
    assert (
        set(seen) == {(20, 20)}
        and net.dim == 20
        and not net.transforms
        and train.evaluate("train")[0] < before
    )
    p = torch.cat(
        [(theta - net.initial()[name]).view(-1) for name, theta in net.dense_weights().items()]
    )
    twin, _ = set_up()
    maps = projections(twin_at_version_1(twin), nn.Parameter(torch.zeros(20)), kind)
    columns = torch.stack(
        [torch.cat([each.project(e) for each in maps.values()]) for e in torch.eye(20)], 1
    )
    z = torch.linalg.lstsq(columns.double(), p.double()[:, None]).solution
    assert torch.allclose(
        columns.double() @ z, p.double()[:, None], atol=1e-5
    )  # it is in the span of P
    for name, parameter in net.uncovered.items():
        assert torch.equal(parameter, net.initial()[name])


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_double_precision_end_at_theta_0_plus_p_z(kind: Any) -> None:
    net, _ = set_up()
    net.to(dtype=torch.float64)
    z = torch.randn(6, dtype=torch.float64)
    columns, theta_0 = (
        matrix(net, 6, kind),
        torch.cat([w.dense().clone() for w in net.weights.values()]),
    )
    net.freeze(dict.fromkeys(net.parameters()))
    net.add_transforms(projections(net, nn.Parameter(z.clone()), kind))
    made.displace(net, made.Displacement(kind, net.seed, z))
    theta = torch.cat([w.dense() for w in net.weights.values()])
    assert torch.allclose(theta, theta_0 + columns @ z, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("folds", [True, False])
def test_a_net_that_is_loaded_reports_the_same_dim(folds: bool) -> None:
    net, train = set_up(steps=2)
    if folds:
        IntrinsicDimension(
            dim=20, projection="sparse", lr_scale=10.0, train_biases_and_norms=False
        ).run(net, train)
    else:
        Subspace(kind="simplex", points=2, beta=1.0, layerwise=False).run(net, train)
    again, _ = set_up(steps=2)
    again.load(net.state())
    assert again.dim == net.dim == (20 if folds else net.total)


def twin_at_version_1(net: Net) -> Net:
    net.freeze({})
    return net


def test_a_checkpoint_holds_z_and_no_projection() -> None:
    net, _ = set_up()
    z = nn.Parameter(torch.zeros(20))
    for kind in KINDS:
        maps: dict[str, Offset] = projections(net, z, kind)
        assert all(list(each.state_dict()) == ["z"] for each in maps.values())


def test_biases_and_norms_train_besides_if_told_to() -> None:
    net, train = set_up(steps=2)
    IntrinsicDimension(dim=20, projection="sparse", lr_scale=10.0, train_biases_and_norms=True).run(
        net, train
    )
    assert (
        sum(p.numel() for p in net.parameters().values() if p.requires_grad) == 4 + 2 * 4 + 12 + 2
    )
    assert not torch.equal(net.model[6].bias, net.initial()["6.bias"])


def test_more_directions_than_weights_are_an_error() -> None:
    net, train = set_up()
    with pytest.raises(
        UserError, match=r"method\.dim=900 is more than the number of covered weights, 828"
    ):
        IntrinsicDimension(
            dim=900, projection="dense", lr_scale=1.0, train_biases_and_norms=False
        ).run(net, train)
    IntrinsicDimension(
        dim=828, projection="fastfood", lr_scale=1.0, train_biases_and_norms=False
    ).run(net, train)


# -- lines, curves and simplexes -----------------------------------------------------------------
def corners(points: int = 2) -> Tensor:
    return torch.randn(points, 3, 4, generator=torch.Generator().manual_seed(0))


def test_a_line_goes_through_its_ends_and_is_judged_in_the_middle() -> None:
    method, points = Subspace(kind="simplex", points=2, beta=1.0, layerwise=False), corners()
    line = Corners(points, method.weights(torch.tensor(0.5)))
    for i, at in enumerate(((1.0, 0.0), (0.0, 1.0))):
        line.at.copy_(torch.tensor(at))
        assert torch.equal(line(torch.zeros(3, 4)), points[i])
    line.eval()
    assert torch.allclose(line(torch.zeros(3, 4)), (points[0] + points[1]) / 2)


def test_a_curve_is_the_quadratic_bezier() -> None:
    method = Subspace(kind="curve", points=3, beta=1.0, layerwise=False)
    for a, expected in (
        (0.0, (1, 0, 0)),
        (1.0, (0, 0, 1)),
        (0.5, (0.25, 0.5, 0.25)),
        (0.2, (0.64, 0.32, 0.04)),
    ):
        assert method.weights(torch.tensor(a)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("points", [2, 3, 5])
def test_random_points_are_uniform_on_the_simplex(points: int) -> None:
    draws = torch.Generator().manual_seed(0)
    method = Subspace(kind="simplex", points=points, beta=1.0, layerwise=False)
    at = torch.stack([method.random_point(draws) for _ in range(4000)])
    assert torch.allclose(at.sum(1), torch.ones(4000, dtype=torch.float64)) and at.min() >= 0
    assert torch.allclose(at.mean(0), at.new_tensor(1 / points), atol=0.02)
    variance = (points - 1) / (points**2 * (points + 1))  # of a flat Dirichlet; 1/12 of a line
    assert torch.allclose(at.var(0), at.new_tensor(variance), rtol=0.1)


def test_the_penalty_is_the_mean_squared_cosine_of_whole_nets() -> None:
    centre, shapes = torch.full((3,), 1 / 3), ((3, 4), (2, 5), (6,))
    points = [torch.randn(3, *shape) for shape in shapes]
    maps = {str(i): Corners(each, centre) for i, each in enumerate(points)}
    maps["0"] = Penalised(points[0], centre, 0.7, maps)
    nets = torch.cat([each.flatten(1) for each in points], 1)
    cosines = [
        torch.cosine_similarity(nets[i], nets[j], dim=0) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert torch.allclose(maps["0"].penalty(torch.empty(0)), 0.7 * torch.stack(cosines).mean())
    assert not maps["1"].has_penalty and len(list(maps["0"].parameters())) == 1


def run(
    method: Subspace, see: Callable[[Net, int], None] = lambda net, t: None, **recipe: Any
) -> tuple[Net, Train]:
    net, train = set_up(**recipe)
    watch(train, lambda t: see(net, t), "before_update")
    method.run(net, train)
    return net, train


@pytest.mark.parametrize("layerwise", [False, True])
def test_there_is_a_new_point_in_every_step_for_all_layers_or_for_each(layerwise: bool) -> None:
    seen: list[Tensor] = []
    run(
        Subspace(kind="simplex", points=2, beta=1.0, layerwise=layerwise),
        lambda net, t: seen.append(torch.stack([each.at for each in net.transforms.values()])),
    )  # type: ignore[misc]
    assert len({tuple(at.view(-1).tolist()) for at in seen}) == 40
    for at in seen:
        assert (at[0] == at[1]).all() != layerwise and (at[1] == at[2]).all() != layerwise


def test_corners_start_as_other_orders_of_the_initial_weights_and_grow_orthogonal() -> None:
    cosines: list[float] = []

    def see(net: Net, t: int) -> None:
        points: Tensor = net.transforms["4.weight"].points.detach()  # type: ignore[assignment, union-attr]
        if t == 0:
            assert net.dim == 3 * net.total
            assert torch.equal(points[0], net.initial()["4.weight"])
            ordered = points.flatten(1).sort().values
            assert torch.equal(ordered[0], ordered[1]) and not torch.equal(points[1], points[2])
        cosines.append(
            float(torch.cosine_similarity(points[0].view(-1), points[1].view(-1), dim=0))
        )

    run(Subspace(kind="simplex", points=3, beta=10.0, layerwise=False), see)
    assert abs(cosines[-1]) < 0.2


def test_the_result_is_the_plain_net_in_the_middle_with_its_own_statistics() -> None:
    last: dict[str, Tensor] = {}

    def see(net: Net, t: int) -> None:
        last.update({name: each.points for name, each in net.transforms.items()})  # type: ignore[misc]

    net, train = run(Subspace(kind="simplex", points=2, beta=1.0, layerwise=False), see)
    assert not net.transforms and net.dim == net.total
    for name, theta in net.dense_weights().items():
        assert torch.allclose(theta, last[name].detach().mean(0))
    images = torch.cat([images for images, _ in train.data.train_batches(8, 3, 0)])
    with torch.no_grad():
        means = net.model[0](images).mean((0, 2, 3))
    assert (
        torch.allclose(net.model[1].running_mean, means, atol=1e-5) and net.model[1].momentum == 0.1
    )
    assert train.evaluate("test")[1] > 0.8


def test_statistics_are_averaged_only_where_there_are_some() -> None:
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    average_statistics(net, None)  # type: ignore[arg-type] (no batch is asked for)


@pytest.mark.parametrize(
    "make",
    [
        lambda: IntrinsicDimension(
            dim=0, projection="dense", lr_scale=1.0, train_biases_and_norms=False
        ),
        lambda: IntrinsicDimension(
            dim=5, projection="dense", lr_scale=0.0, train_biases_and_norms=False
        ),
        lambda: Subspace(kind="simplex", points=1, beta=1.0, layerwise=False),
        lambda: Subspace(kind="curve", points=2, beta=1.0, layerwise=False),
        lambda: Subspace(kind="simplex", points=2, beta=-1.0, layerwise=False),
    ],
)
def test_values_out_of_range_are_errors(make: Callable[[], Any]) -> None:
    with pytest.raises(UserError, match=r"method\.\w+=.* is not allowed"):
        make()
