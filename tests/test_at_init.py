"""Pruning at initialisation: scores against closed forms and finite differences, methods against
each other."""

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import linprog
from torch import Tensor, nn
from toy import RECIPE, model, set_up

from dimred.data import Digits, imagefolder
from dimred.errors import UserError
from dimred.methods.pruning_at_init.base import AtInit
from dimred.methods.pruning_at_init.cops import COPS
from dimred.methods.pruning_at_init.iterative import FORCE, NTKSAP, IterSNIP, SynFlow
from dimred.methods.pruning_at_init.phew import PHEW
from dimred.methods.pruning_at_init.single_shot import (
    LAMP,
    SNIP,
    CroP,
    FreezeNet,
    GraSP,
    Magnitude,
    ProsPr,
    Random,
)
from dimred.methods.pruning_at_init.transfer import NTT
from dimred.net import Net
from dimred.scores import (
    balanced,
    combined,
    generator,
    gradient_flow,
    gradients,
    grasp,
    halves_by_class,
    kernel_product,
    lamp,
    masked,
    ntk_sap,
    permuted,
    phew,
    prospr,
    random_scores,
    snip,
    synflow,
    transfer,
)
from dimred.scores.phew import path_tables, read_layers, sample_walks
from dimred.select.allocate import ER, ERK, IGQ, Balanced, Global, SmartRatio, Uniform, UniformPlus
from dimred.select.topk import rounded_down, topk
from dimred.training.loop import Train


def mlp(*sizes: int, bias: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [
        module
        for i, o in itertools.pairwise(sizes)
        for module in (nn.Linear(i, o, bias=bias), nn.ReLU())
    ]
    return nn.Sequential(*layers[:-1])


def lenet300() -> nn.Sequential:
    return mlp(784, 300, 100, 10)


def lenet5() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


class Residual(nn.Module):
    """A stem, a block with an identity, a depthwise convolution with appended channels, a Linear
    layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.one, self.two = (
            nn.Conv2d(1, 4, 3, padding=1),
            nn.Conv2d(4, 4, 3),
            nn.Conv2d(4, 4, 1),
        )
        self.depthwise, self.wide = nn.Conv2d(4, 4, 2, groups=4), nn.Conv2d(4, 6, 1)
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.two(F.relu(self.one(x), inplace=True)) + x[:, :, 1:-1, 1:-1])
        x = self.depthwise(x)
        x = self.wide(x) + F.pad(x, (0, 0, 0, 0, 0, 2))
        return self.fc(x.mean((2, 3)))


def batch(n: int = 12, inputs: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(1)
    return torch.randn(n, inputs, generator=draws, dtype=torch.float64), torch.arange(n) % classes


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def supports_of(method: AtInit, **recipe: object) -> dict[str, Tensor]:
    net, train = set_up(steps=1, **recipe)
    method.run(net, train)
    return {name: w.trained() for name, w in net.weights.items()}


# -- allocations ---------------------------------------------------------------------------------
LEAST = 0.0015
FIXTURES = [  # densities worked out independently from the formulas of the papers
    (IGQ(), lenet300, 0.90, [0.0644, 0.3507, 0.9419]),
    (IGQ(), lenet300, 0.95, [0.0288, 0.1887, 0.8746]),
    (IGQ(), lenet300, 0.98, [0.0101, 0.0744, 0.7068]),
    (IGQ(), lenet5, 0.90, [0.9819, 0.5198, 0.0634, 0.8440]),
    (IGQ(), lenet5, 0.98, [0.8684, 0.1166, 0.0082, 0.3976]),
    (Balanced(), lenet300, 0.90, [0.0545, 0.4270, 1.0]),
    (Balanced(), lenet5, 0.90, [1.0, 0.7510, 0.0469, 1.0]),
    (ERK(power=1.0), lenet5, 0.90, [1.0, 0.0871, 0.0884, 1.0]),
    (ER(), lenet300, 0.90, [0.0796, 0.2302, 1.0]),  # without kernels ER is ERK
    (UniformPlus(last_density=0.2), lenet300, 0.90, [0.1 - 100 / 265200] * 2 + [0.2]),
    (UniformPlus(last_density=0.2), lenet5, 0.90, [1.0, *[(43050 - 1500) / 425000] * 2, 0.2]),
    (UniformPlus(last_density=0.2), lenet5, 0.50, [1.0, *[(215250 - 500) / 430000] * 3]),
    (
        SmartRatio(power=0.0, last_density=0.3),
        lenet300,
        0.90,
        [*(26320 / (12 * 235200 + 6 * 30000) * n for n in (12, 6)), 0.3],
    ),
]


@pytest.mark.parametrize(("allocation", "model", "sparsity", "densities"), FIXTURES)
def test_densities_are_those_of_the_formula(
    allocation: object, model: object, sparsity: float, densities: list[float]
) -> None:
    net = Net(model())  # type: ignore[operator]
    counts = allocation(net, 1 - sparsity)  # type: ignore[operator]
    for w, count, density in zip(net.weights.values(), counts.values(), densities, strict=True):
        assert abs(count / w.size - density) < LEAST


ALLOCATIONS = [
    Uniform(),
    UniformPlus(last_density=0.2),
    ER(),
    ERK(power=1.0),
    IGQ(),
    Balanced(),
    SmartRatio(power=0.0, last_density=0.3),
    SmartRatio(power=2.0, last_density=0.3),
]


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.sampled_from(ALLOCATIONS),
    st.sampled_from([lenet5, Residual]),
)
def test_allocations_meet_the_budget_and_grow_with_it(
    one: float, other: float, allocation: object, model: object
) -> None:
    net = Net(model())  # type: ignore[operator]
    few, many = (allocation(net, density) for density in sorted((one, other)))  # type: ignore[operator]
    for density, counts in zip(sorted((one, other)), (few, many), strict=True):
        assert sum(counts.values()) == round(density * net.total)
        assert all(0 <= counts[name] <= w.size for name, w in net.weights.items())
    assert all(few[name] <= many[name] for name in net.weights)


TINY = [nn.Conv2d(1, 2, 2), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(5, 3), nn.Linear(3, 2)]
COVERS = [
    ".",
    *(
        f"^[{''.join(layers)}].weight$"
        for n in (1, 2, 3, 4)
        for layers in itertools.combinations("0134", n)
    ),
]


@pytest.mark.parametrize(
    "allocation",
    [*ALLOCATIONS, UniformPlus(last_density=1.0), SmartRatio(power=1.0, last_density=1.0)],
    ids=repr,
)
def test_masks_of_a_schedule_are_nested_in_tiny_nets(allocation: Uniform) -> None:
    """For every budget, whatever is covered: exact, never negative, and no layer less than with one
    weight fewer."""
    for include in COVERS:
        net = Net(nn.Sequential(*copy.deepcopy(TINY)), include=[include])
        before = dict.fromkeys(net.weights, 0)
        for budget in range(net.total + 1):
            counts = allocation(net, budget / net.total)
            assert sum(counts.values()) == budget
            assert all(before[name] <= counts[name] <= w.size for name, w in net.weights.items()), (
                include,
                budget,
            )
            before = counts


@pytest.mark.parametrize("density, counts", [(0.05, [92, 183]), (0.5, [500, 2250])])
def test_uniform_plus_shares_a_budget_that_its_two_layers_have_to_themselves(
    density: float, counts: list[int]
) -> None:
    """They are to keep 500 and 1000 weights: 275 are shared 1 to 2, and from 1500 on both have what
    they are to."""
    net = Net(lenet5(), include=["^0.weight", "^7.weight"])
    assert list(UniformPlus(last_density=0.2)(net, density).values()) == counts


def test_smart_ratio_keeps_its_fraction_of_every_linear_layer() -> None:
    """Of 688 weights 138 are left: 0.3 of 32 and of 8, and 126 for the convolutions, as 72 * 20 to
    576 * 12."""
    net = Net(
        nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 2)
        )
    )
    assert list(SmartRatio(power=0.0, last_density=0.3)(net, 0.2).values()) == [22, 104, 10, 2]


def test_smart_ratio_falls_with_depth_and_faster_for_vgg() -> None:
    net = Net(mlp(50, 50, 50, 50, 10))
    for power, ratios in ((0.0, (20, 12, 6)), (2.0, (20, 12 / 4, 6 / 9))):
        counts = list(SmartRatio(power=power, last_density=0.3)(net, 0.05).values())
        assert counts[3] == 150
        for count, ratio in zip(counts, ratios, strict=False):
            assert abs(count / counts[0] - ratio / 20) < 0.01


def test_a_last_layer_that_wants_more_than_there_is_gets_half() -> None:
    counts = SmartRatio(power=0.0, last_density=0.3)(Net(lenet300()), 0.001)
    assert sum(counts.values()) == 266 and counts["4.weight"] == 133


# -- every method --------------------------------------------------------------------------------
MORE: dict[type, dict[str, Any]] = {
    Random: {},
    Magnitude: {},
    LAMP: {},
    SNIP: {"examples": 32},
    FreezeNet: {"examples": 32},
    GraSP: {"examples_per_class": 5},
    CroP: {"examples": 16, "batches": 3},
    ProsPr: {"examples": 16},
    PHEW: {},
    COPS: {"subject_to": ("synflow", "grasp"), "levels": (0.9, 0.3), "examples": 32},
    IterSNIP: {"rounds": 6, "examples": 16},
    FORCE: {"rounds": 6, "schedule": "linear", "examples": 16},
    SynFlow: {"rounds": 10},
    NTKSAP: {"rounds": 3, "examples": 8, "draws": 2},
    NTT: {"transfer_steps": 16, "transfer_batch_size": 8, "weight_decay": 1e-4, "update_every": 5},
}
CLASSES = list(MORE)


def make(
    kind: type,
    sparsity: float = 0.8,
    allocation: object = None,
    base: str = "zero",
    ablation: str = "none",
    **more: Any,
) -> AtInit:
    return kind(
        sparsity=sparsity,
        allocation=allocation or Global(),
        base=base,
        ablation=ablation,
        **MORE[kind] | more,
    )


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(("base", "allocation"), [("zero", Global()), ("init", ERK(power=1.0))])
def test_counts_are_exact_and_the_others_read_their_base(
    kind: type, base: str, allocation: object
) -> None:
    net, train = set_up(steps=3)
    make(kind, 0.8, allocation, base).run(net, train)
    assert net.dim == round(0.2 * net.total)
    for name, w in net.weights.items():
        left = w.dense()[~w.trained()]
        initial = net.initial()[name].view(-1)[~w.trained()]
        assert torch.equal(left, initial if base == "init" else torch.zeros_like(left))
        assert (
            not torch.equal(w.dense()[w.trained()], net.initial()[name].view(-1)[w.trained()])
            or w.dim == 0
        )


@pytest.mark.parametrize("kind", CLASSES)
def test_scoring_leaves_norms_and_random_states_alone(kind: type) -> None:
    net, train = set_up()
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    random = torch.get_rng_state()
    supports = make(kind).choose(net, train)
    assert (
        torch.equal(random, torch.get_rng_state())
        and net.model.training
        and net.support_version == 0
    )
    for name, value in net.model.state_dict().items():
        assert torch.equal(value, before[name]) or (kind is NTT and name in net.weights)
    assert same(supports, make(kind).choose(set_up()[0], train))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "passes"),
    [(ProsPr, [4]), (COPS, [3]), (GraSP, [1]), (CroP, [3, 3]), (PHEW, [20])],
)
def test_passes_of_long_scores_are_reported(
    kind: type, passes: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for limit in ("PATIENCE", "SILENCE"):
        monkeypatch.setattr(f"dimred.training.progress.{limit}", 0.0)
    with caplog.at_level("INFO", logger="dimred.progress"):
        make(kind).choose(*set_up())
    messages = [message.partition(": ")[0] for message in caplog.messages]
    assert messages == [f"scoring {k + 1} of {n}" for n in passes for k in range(n)]


@pytest.mark.parametrize("kind", CLASSES)
def test_without_sparsity_it_is_dense_training(kind: type) -> None:
    net, train = set_up(steps=2)
    make(kind, 0.0).run(net, train)
    dense, other = set_up(steps=2)
    other()
    assert net.dim == net.total and same(net.dense_weights(), dense.dense_weights())


@pytest.mark.parametrize("kind", CLASSES)
def test_shuffling_keeps_the_number_of_each_layer_and_moves_the_mask(kind: type) -> None:
    plain, shuffled = supports_of(make(kind)), supports_of(make(kind, ablation="shuffle"))
    assert [int(m.sum()) for m in plain.values()] == [int(m.sum()) for m in shuffled.values()]
    full = [name for name, m in plain.items() if 0 < m.sum() < len(m)]
    assert full and all(
        not torch.equal(plain[name], shuffled[name]) for name in full if len(plain[name]) > 100
    )


@pytest.mark.parametrize("base", ["zero", "init"])
@pytest.mark.parametrize("kind", CLASSES)
def test_reinitialising_keeps_the_mask_and_draws_from_the_same_values(
    kind: type, base: str
) -> None:
    plain, train = set_up()
    make(kind, base=base).prune(plain, train)
    net, train = set_up()
    make(kind, base=base, ablation="reinit").prune(net, train)
    assert same(plain.supports, net.supports)  # type: ignore[arg-type]
    for name, w in net.weights.items():
        initial = net.initial()[name].view(-1)
        assert torch.isin(w.psi, initial).all()
        assert w.dim < 10 or not torch.equal(w.psi, w.gather(initial))
        assert base == "zero" or torch.equal(w.dense()[~w.trained()], initial[~w.trained()])


def test_inverting_trains_what_the_score_ranks_last() -> None:
    net, train = set_up()
    scores = snip(net, train.sample(32))
    worst = topk({name: -score for name, score in scores.items()}, 166)
    SNIP(sparsity=0.8, allocation=Global(), base="zero", ablation="invert", examples=32).prune(
        net, train
    )
    assert same(net.supports, worst)  # type: ignore[arg-type]


def test_inverted_rounds_never_bring_back_what_was_pruned() -> None:
    net, train = set_up()
    method = IterSNIP(
        sparsity=0.8,
        allocation=Global(),
        base="zero",
        ablation="invert",
        rounds=4,
        schedule="exponential",
        examples=16,
    )
    seen = rounds_of(method, net, train)
    for earlier, later in itertools.pairwise(seen):
        assert all((earlier[name] | ~later[name]).all() for name in later)


# -- one look ------------------------------------------------------------------------------------
def test_lamp_by_hand() -> None:
    net = Net(nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2, bias=False)))
    with torch.no_grad():
        net.weights["0.weight"].psi.copy_(torch.tensor([1.0, -3.0, 2.0, 0.0]))
        net.weights["1.weight"].psi.copy_(torch.tensor([0.1, -0.1]))
    scores = lamp(net)
    assert torch.allclose(
        scores["0.weight"], torch.tensor([[1 / 14, 1.0, 4 / 13, 0.0]], dtype=torch.float64)
    )
    assert torch.allclose(
        scores["1.weight"].view(-1), torch.tensor([1.0, 0.5], dtype=torch.float64)
    )


def test_lamp_does_not_depend_on_the_scale_of_a_layer() -> None:
    net, other = Net(mlp(6, 5, 3).double()), Net(mlp(6, 5, 3).double())
    with torch.no_grad():
        other.weights["0.weight"].psi.mul_(8)
    assert all(
        torch.allclose(lamp(net)[name], lamp(other)[name], rtol=1e-12) for name in net.weights
    )


def test_a_balanced_batch_has_as_many_of_each_class() -> None:
    labels = torch.tensor([0, 0, 1, 0, 2, 1, 1, 0])
    images, chosen = balanced((torch.arange(8), labels), 2)
    assert images.tolist() == [0, 1, 2, 4, 5] and chosen.tolist() == [0, 0, 1, 2, 1]


def test_grasp_is_the_change_of_the_squared_gradient() -> None:
    """theta (H g) = theta/2 d|g|^2/dtheta, by finite differences, and its sum is theta^T H g."""
    net = Net(mlp(6, 5, 3).double())
    images, labels = batch()

    def loss(out: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(out / 2.0, labels)

    def squared(thetas: dict[str, Tensor]) -> float:
        return sum(
            float(g.square().sum())
            for g in gradients(net, (images, labels), loss, at=thetas).values()
        )

    thetas = {name: theta.clone() for name, theta in net.dense_weights().items()}
    scores = grasp(net, (images, labels), 2.0)
    eps = 1e-6
    for name, theta in thetas.items():
        for i in range(theta.numel()):
            up, down = ({**thetas, name: theta.clone()} for _ in range(2))
            up[name].view(-1)[i] += eps
            down[name].view(-1)[i] -= eps
            slope = (squared(up) - squared(down)) / (2 * eps)
            assert math.isclose(
                scores[name].view(-1)[i], theta.view(-1)[i] * slope / 2, rel_tol=1e-5, abs_tol=1e-10
            )
    along = [
        squared({n: (1 + sign * eps) * theta for n, theta in thetas.items()}) for sign in (1, -1)
    ]
    total = sum(float(score.sum()) for score in scores.values())
    assert math.isclose(total, (along[0] - along[1]) / (4 * eps), rel_tol=1e-6)


def test_grasp_is_double_precision_for_a_single_precision_net() -> None:
    images, labels = batch()
    model = mlp(6, 5, 3)
    exact = grasp(Net(copy.deepcopy(model).double()), (images.float(), labels))
    assert (
        same(grasp(Net(model), (images.float(), labels)), exact)
        and exact["0.weight"].dtype == torch.float64
    )


def test_gradient_flow_of_batches_is_that_of_the_sum_of_their_gradients() -> None:
    """theta/2 d|g|^2/dtheta with g the sum of the gradients of two batches, in plain PyTorch."""
    model = mlp(6, 5, 3).double()
    images, labels = batch()
    first, second = (images[:5], labels[:5]), (images[5:], labels[5:])
    scores = gradient_flow(Net(copy.deepcopy(model)), [first, second], temperature=2.0)
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    loss = sum(F.cross_entropy(model(x) / 2.0, y) for x, y in (first, second))
    grads = torch.autograd.grad(loss, weights, create_graph=True)
    slopes = torch.autograd.grad(sum(g.square().sum() for g in grads), weights)
    for score, weight, slope in zip(scores.values(), weights, slopes, strict=True):
        assert torch.allclose(score, weight * slope / 2, rtol=1e-10, atol=1e-15)


def test_halves_are_of_the_first_classes_and_of_the_last() -> None:
    labels = torch.tensor([2, 0, 1, 3, 2, 0, 3, 1])
    first, second = halves_by_class((torch.arange(8), labels))
    assert first[0].tolist() == [1, 5, 2, 7] and first[1].tolist() == [0, 0, 1, 1]
    assert second[0].tolist() == [0, 4, 3, 6] and second[1].tolist() == [2, 2, 3, 3]


def test_halves_change_grasp_only_through_the_statistics_of_norms() -> None:
    """Without norms, the sums over two equal halves are twice the means over all: scores are four
    times as large."""

    def scores(halves: bool, norms: bool) -> dict[str, Tensor]:
        net, train = set_up()
        if not norms:
            net = Net(nn.Sequential(nn.Flatten(), *mlp(16, 8, 2)))
        # type: ignore
        return GraSP(
            sparsity=0.8,
            allocation=Global(),
            base="zero",
            ablation="none",
            examples_per_class=6,
            temperature=200.0,
            split_batch=halves,
        ).scores(net, train)

    for norms in (False, True):
        whole, halves = scores(False, norms), scores(True, norms)
        close = [
            torch.allclose(halves[name], 4 * whole[name], rtol=1e-8, atol=1e-20) for name in whole
        ]
        assert all(close) if not norms else not any(close)


def test_crop_is_the_size_of_the_gradient_flow_of_plain_batches() -> None:
    net, train = set_up()
    images, labels = train.sample(24)
    three = [(images[i : i + 8], labels[i : i + 8]) for i in (0, 8, 16)]
    signed, crop = (
        gradient_flow(net, three, 1.0),
        CroP(
            sparsity=0.8, allocation=Global(), base="zero", ablation="none", examples=8, batches=3
        ).scores(net, train),
    )
    assert all(torch.equal(crop[name], signed[name].abs()) for name in crop)
    assert any((score < 0).any() for score in signed.values())


def test_snip_is_blind_to_scales_that_cancel_and_sums_to_the_same_in_every_layer() -> None:
    """The net is homogeneous in each layer, so the sum of theta * dL/dtheta is that of logits *
    dL/dlogits in all."""
    net = Net(mlp(16, 12, 8, 5))
    batch = torch.randn(32, 16, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 5
    scores, grads = snip(net, batch), gradients(net, batch)
    sums = [float((theta * grads[name]).sum()) for name, theta in net.dense_weights().items()]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-4) and abs(sums[0]) > 1e-3
    with torch.no_grad():
        net.weights["0.weight"].psi.mul_(2)
        net.weights["2.weight"].psi.div_(2)
    again = snip(net, batch)
    assert all(torch.allclose(scores[name], again[name], rtol=1e-4, atol=1e-9) for name in scores)


def test_prospr_without_steps_or_without_their_length_is_snip() -> None:
    net = Net(mlp(6, 5, 3, bias=True).double())
    first, last = batch(), batch(9)
    expected = snip(net, last)
    assert same(prospr(net, [last], 0.5), expected)
    for first_order in (False, True):
        assert same(prospr(net, [first, first, last], 0.0, first_order), expected)
    assert not same(prospr(net, [first, last], 0.5), expected)
    assert supports_same(
        ProsPr(
            sparsity=0.8,
            allocation=Global(),
            base="zero",
            ablation="none",
            examples=32,
            inner_steps=0,
            inner_lr=0.1,
            first_order=False,
        ),
        make(SNIP),
    )


def test_prospr_differentiates_through_the_steps() -> None:
    """dL(theta_1)/dc by finite differences in c, for theta_1 = c theta - lr dL/dtheta(c theta)."""
    net = Net(mlp(4, 3, 2).double())
    first, last = batch(8, 4, 2), batch(6, 4, 2)
    scores = prospr(net, [first, last], 0.7)
    thetas = {name: theta.clone() for name, theta in net.dense_weights().items()}

    def after(name: str, i: int, eps: float) -> float:
        at = {**thetas, name: thetas[name].clone()}
        at[name].view(-1)[i] *= 1 + eps
        grads = gradients(net, first, at=at)
        moved = {n: theta - 0.7 * grads[n] for n, theta in at.items()}
        with net.weights_in_place(moved) as model:
            return float(F.cross_entropy(model(last[0]), last[1]))

    for name, score in scores.items():
        for i in range(score.numel()):
            slope = (after(name, i, 1e-5) - after(name, i, -1e-5)) / 2e-5
            assert math.isclose(score.view(-1)[i], abs(slope), rel_tol=1e-5, abs_tol=1e-8)


def test_biases_take_the_inner_steps_of_prospr_unless_told_not_to() -> None:
    """dL(theta_1, b_1)/dc by finite differences in c, in plain PyTorch."""
    model = mlp(3, 3, 2, bias=True).double()
    with torch.no_grad():
        model[0].bias.fill_(0.3)
    names = [name for name, _ in model.named_parameters()]
    first, last = batch(8, 3, 2), batch(6, 3, 2)

    def after(weight: int, i: int, eps: float, others: bool) -> float:
        at = [p.detach().clone() for p in model.parameters()]
        at[weight].view(-1)[i] *= 1 + eps
        at = [p.requires_grad_() for p in at]

        def loss(values: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
            hidden = F.linear(x, values[0], values[1]).relu()
            return F.cross_entropy(F.linear(hidden, values[2], values[3]), y)

        grads = torch.autograd.grad(loss(at, *first), at)
        moved = [
            p - 0.7 * g if others or p.dim() > 1 else p for p, g in zip(at, grads, strict=True)
        ]
        return loss(moved, *last).item()

    net = Net(copy.deepcopy(model))
    different = prospr(net, [first, last], 0.7, others=False)
    for others in (True, False):
        scores = prospr(net, [first, last], 0.7, others=others)
        for name, score in scores.items():
            for i in range(score.numel()):
                one, other = (after(names.index(name), i, eps, others) for eps in (1e-5, -1e-5))
                assert math.isclose(
                    score.view(-1)[i], abs(one - other) / 2e-5, rel_tol=1e-5, abs_tol=1e-8
                )
    assert not same(prospr(net, [first, last], 0.7), different)  # they do by default


def supports_same(one: AtInit, other: AtInit) -> bool:
    return same(supports_of(one), supports_of(other))


# -- several rounds ------------------------------------------------------------------------------
def rounds_of(method: IterSNIP, net: Net, train: object) -> list[dict[str, Tensor]]:
    """The masks after every round."""
    masks: list[dict[str, Tensor]] = []
    best = type(method).best

    def watched(*arguments: object) -> object:
        supports = best(method, *arguments)  # type: ignore[arg-type]
        ones = {name: torch.ones_like(theta) for name, theta in net.dense_weights().items()}
        masks.append({name: mask > 0 for name, mask in masked(ones, supports).items()})
        return supports

    object.__setattr__(method, "best", watched)  # the method is frozen
    method.choose(net, train)  # type: ignore[arg-type]
    return masks


@pytest.mark.parametrize("kind", [IterSNIP, FORCE])
def test_one_round_is_snip(kind: type) -> None:
    assert supports_same(kind(sparsity=0.8, rounds=1, examples=32), make(SNIP))


def test_only_force_brings_weights_back() -> None:
    for kind, nested in ((IterSNIP, True), (FORCE, False)):
        net, train = set_up()
        masks = rounds_of(kind(rounds=8, examples=16), net, train)
        counts = [sum(int(m.sum()) for m in mask.values()) for mask in masks]
        assert counts == [round(0.1 ** (t / 8) * net.total) for t in range(1, 9)]
        inside = all(
            (earlier[name] | ~later[name]).all()
            for earlier, later in itertools.pairwise(masks)
            for name in later
        )
        assert inside == nested


@pytest.mark.parametrize("kind", [IterSNIP, FORCE, SynFlow, NTKSAP])
def test_rounds_keep_a_rounded_number_of_weights_or_one_that_is_rounded_down(kind: type) -> None:
    net, train = set_up()
    assert net.total == 828  # 828 * 0.1^(1/3) = 384.3, 828 * 0.1^(2/3) = 178.4, 82.8
    for rounding, expected in (("nearest", [384, 178, 83]), ("floor", [384, 178, 82])):
        method = make(kind, 0.9, rounds=3, schedule="exponential", rounding=rounding)
        masks = rounds_of(method, net, train)
        assert [sum(int(m.sum()) for m in mask.values()) for mask in masks] == expected


def test_a_number_of_weights_that_is_meant_to_be_whole_is_not_rounded_down() -> None:
    assert (1 - 0.9) * 830 < 83 and rounded_down((1 - 0.9) * 830) == 83 and rounded_down(83.9) == 83


def test_force_scores_pruned_weights_as_if_they_returned() -> None:
    net, train = set_up()
    supports = {name: torch.arange(w.size // 2) for name, w in net.weights.items()}
    scores = make(FORCE).scorer(net, train)(supports, 0)  # type: ignore[attr-defined]
    inside, outside = masked(scores, supports), masked(scores, supports, -1.0)
    assert any(
        (outside[name] < 0).any() and (scores[name] - inside[name]).abs().sum() > 0
        for name in scores
    )


def test_synflow_has_the_closed_form() -> None:
    net = Net(mlp(4, 5, 3, 2))
    one, two, three = (theta.double().abs() for theta in net.dense_weights().values())
    scores = synflow(net, (4,), net.supports)
    before, after = one.sum(1), three.sum(0)
    assert torch.allclose(scores["2.weight"], after[:, None] * two * before[None, :], rtol=1e-12)
    # the flow is the same, the factor is squared
    squares = synflow(net, (4,), net.supports, power=2)
    assert torch.allclose(
        squares["2.weight"], after[:, None] * two.square() * before[None, :], rtol=1e-12
    )


@pytest.mark.parametrize(
    "model",
    [
        mlp(16, 30, 15, 5),
        nn.Sequential(
            nn.Conv2d(1, 3, 3, bias=False),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12, 2, False),
        ),
    ],
)
def test_synflow_of_every_layer_sums_to_the_flow(model: nn.Module) -> None:
    net = Net(model)
    shape = (1, 4, 4) if isinstance(model[0], nn.Conv2d) else (16,)  # type: ignore[index]
    for supports in (
        net.supports,
        topk(random_scores(net), {name: w.size // 2 for name, w in net.weights.items()}),
    ):
        sums = [float(score.sum()) for score in synflow(net, shape, supports).values()]
        ones = {
            name: m.double()
            for name, m in masked(
                {n: torch.ones_like(t) for n, t in net.dense_weights().items()}, supports
            ).items()
        }
        flow = copy.deepcopy(model).double().eval()  # R = 1^T f(1) with |theta| in the support
        with torch.no_grad():
            for name, p in flow.named_parameters():
                p.copy_(p.abs() * ones[name]) if name in ones else p.abs_()
            for module in flow.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.bias.zero_()
            total = float(flow(torch.ones(1, *shape, dtype=torch.float64)).sum())
        assert total > 0 and all(math.isclose(s, total, rel_tol=1e-5) for s in sums)


def test_synflow_does_not_overflow_in_deep_nets() -> None:
    net = Net(mlp(*[256] * 60))
    with torch.no_grad():
        for w in net.weights.values():
            w.psi.mul_(3)
    assert all(score.isfinite().all() for score in synflow(net, (256,), net.supports).values())


def test_synflow_leaves_a_path_at_any_sparsity() -> None:
    """With as many weights as layers one of each is left: the largest compression there is."""
    for left in (3, 4, 20):
        net, train = set_up()
        for (
            name,
            p,
        ) in (
            net.uncovered.items()
        ):  # flow is conserved from layer to layer where no bias adds to it
            p.data.fill_(float(name == "1.weight"))
        SynFlow(
            sparsity=1 - left / net.total,
            allocation=Global(),
            base="zero",
            ablation="none",
            rounds=100,
            schedule="exponential",
            power=1,
        ).prune(net, train)
        assert net.dim == left and all(w.dim for w in net.weights.values())
        assert sum(float(s.sum()) for s in synflow(net, (1, 4, 4), net.supports).values()) > 0


def test_ntk_sap_is_quadratic_in_epsilon_and_needs_no_labels() -> None:
    net = Net(mlp(4, 6, 3).double())
    random = [generator(net, "same") for _ in range(2)]
    supports = {"0.weight": torch.arange(10), "2.weight": None}
    large, small = (
        ntk_sap(net, (4,), supports, 8, 3, eps, draws)
        for eps, draws in zip((2e-4, 1e-4), random, strict=True)
    )
    for name in large:
        assert torch.allclose(large[name], 4 * small[name], rtol=2e-2, atol=1e-12)
    assert large["0.weight"].view(-1)[:10].any()


def test_ntk_sap_by_finite_differences_in_the_mask() -> None:
    net, eps = Net(mlp(3, 4, 2).double()), 1e-6
    scores = ntk_sap(net, (3,), net.supports, 5, 1, 0.1, generator(net, "x"))
    draws = generator(net, "x")
    images = torch.randn(5, 3, generator=draws).double()
    thetas = permuted(net.dense_weights(), draws)
    shifted = {
        name: theta + 0.1 * torch.randn(theta.shape, generator=draws).double()
        for name, theta in thetas.items()
    }

    def far(name: str, i: int, change: float) -> float:
        outs = []
        for each in (thetas, shifted):
            gated = {**each, name: each[name].clone()}
            gated[name].view(-1)[i] *= 1 + change
            with net.weights_in_place(gated) as model:
                outs.append(model(images))
        return float((outs[0] - outs[1]).square().sum())

    for name, score in scores.items():
        for i in range(score.numel()):
            slope = (far(name, i, eps) - far(name, i, -eps)) / (2 * eps)
            assert math.isclose(score.view(-1)[i], abs(slope), rel_tol=1e-5, abs_tol=1e-8)


def test_ntk_sap_and_synflow_choose_the_same_whatever_the_labels() -> None:
    for kind in (NTKSAP, SynFlow, PHEW):
        net, train = set_up()
        train.sample = None  # type: ignore[method-assign, assignment] (calling it would fail)
        make(kind).prune(net, train)
        assert net.dim == 166


def test_no_walk_visits_biases_and_norms_that_are_covered() -> None:
    """conv, norm, linear, linear have 828 weights, and 26 biases and scales: they rank last, by
    size."""
    plain, train = set_up()
    net = Net(model(), seed=plain.seed, include=["."])
    scores, among_weights = (
        phew(each, train.data.shape, 200, generator(each, "phew")) for each in (net, plain)
    )
    assert scores.keys() > among_weights.keys()
    chosen = topk(scores, 200)
    for name, support in chosen.items():
        expected = topk(among_weights, 200)[name] if name in among_weights else []
        assert list(support) == list(expected)
    assert scores["1.weight"].tolist() == [1.0] * 4  # the largest of all sizes
    with pytest.raises(
        UserError, match="phew walks through Conv and Linear layers, and none of them is covered"
    ):
        phew(Net(model(), include=["bias"]), train.data.shape, 5, generator(net, "phew"))


# -- transfer ------------------------------------------------------------------------------------
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


def test_both_distances_move_the_student() -> None:
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


def test_a_dense_student_is_no_distance_from_its_teacher() -> None:
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


# -- walks ---------------------------------------------------------------------------------------
def on_paths(net: Net, shape: tuple[int, ...]) -> int:
    """How many of the weights in the supports lie on a path from input to output."""
    flow = copy.deepcopy(net)
    with torch.no_grad():
        for w in flow.weights.values():
            w.psi.fill_(1.0)
    for name, p in flow.uncovered.items():
        p.data.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return sum(int((score > 0).sum()) for score in synflow(flow, shape, flow.supports).values())


@pytest.mark.parametrize(
    ("model", "shape", "density"),
    [
        *((lambda: mlp(20, 30, 20, 4), (20,), density) for density in (0.02, 0.1, 0.5, 0.9)),
        *((Residual, (1, 7, 7), density) for density in (0.05, 0.1, 0.5, 0.9)),
        (lenet5, (1, 28, 28), 0.02),
    ],
)
def test_all_that_walks_keep_lies_on_paths(
    model: object, shape: tuple[int, ...], density: float
) -> None:
    net = Net(model())  # type: ignore[operator]
    count = max(10, round(density * net.total))
    net.keep(topk(phew(net, shape, count, generator(net, "phew")), count))
    assert net.dim == count == on_paths(net, shape)


def test_walks_prefer_large_weights_and_have_no_preference_when_all_are_alike() -> None:
    net = Net(mlp(30, 40, 30, 5))
    count = round(0.1 * net.total)

    def mean_size(net: Net) -> float:
        kept = topk(phew(net, (30,), count, generator(net, "phew")), count)
        sizes = {
            name: theta.abs() / theta.abs().mean() for name, theta in net.dense_weights().items()
        }
        return float(sum(masked(sizes, kept)[name].sum() for name in kept)) / count

    assert mean_size(net) > 1.15
    edges = torch.zeros(30, 40)  # of the middle layer: how often they are walked, over many draws
    for seed in range(100):
        alike = Net(mlp(30, 40, 30, 5), seed=seed)
        with torch.no_grad():
            for w in alike.weights.values():
                w.psi.fill_(0.5)
        walked = topk(
            phew(alike, (30,), 100, generator(alike, "phew")), 96
        )  # without those that bring it to 100
        edges.view(-1)[walked["2.weight"]] += 1
    expected = float(edges.mean())
    assert (
        expected > 1 and float(edges.var()) < 1.2 * expected
    )  # as of equal chances; unequal ones spread wider


def test_walks_leave_a_channel_by_any_of_its_pixels_alike() -> None:
    """A channel of four pixels, flattened, whose weights in the next layer are 1, 10, 100 and
    1000."""
    net = Net(
        nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 1, bias=False))
    )
    with torch.no_grad():
        net.weights["2.weight"].psi.copy_(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    layers = read_layers(net, (1, 2, 2))
    tables = {name: path_tables(layer) for name, layer in layers.items()}
    found, walk = sample_walks(layers, tables, range(8000), torch.Generator().manual_seed(0))
    # place 0 is the convolution's
    forwards = torch.bincount(found[walk % 2 == 0], minlength=5)[1:]
    backwards = torch.bincount(found[walk % 2 == 1], minlength=5)[1:]
    assert forwards.sum() == backwards.sum() == 4000
    assert ((forwards - 1000).abs() < 5 * math.sqrt(1000 * 0.75)).all()  # each of them a quarter
    # from the output by size: 1000 and 1 of 1111
    assert backwards[3] > 3400 and backwards[0] < 40


def test_walks_say_what_they_need() -> None:
    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x)[:, :4])

    with pytest.raises(
        UserError, match=r"phew walks from channel to channel, and in Split .* model=resnet20"
    ):
        phew(Net(Split()), (4,), 5, torch.Generator())


# -- combined ------------------------------------------------------------------------------------
def uniform_scores(n: int, number: int, seed: int) -> list[dict[str, Tensor]]:
    draws = torch.Generator().manual_seed(seed)
    return [{"a": torch.rand(n, generator=draws).double()} for _ in range(number)]


def unit(score: dict[str, Tensor]) -> np.ndarray:
    return (score["a"] / score["a"].abs().sum()).numpy()


@pytest.mark.parametrize("seed", range(5))
def test_a_level_of_zero_is_the_first_score_and_of_one_the_second(seed: int) -> None:
    first, second = uniform_scores(40, 2, seed)

    def choose(score: dict[str, Tensor]) -> dict[str, Tensor]:
        return topk(score, 12)  # type: ignore[return-value]

    assert same(choose(combined([first, second], [0.0], choose)), choose(first))  # type: ignore[arg-type]
    assert same(choose(combined([first, second], [1.0], choose)), choose(second))  # type: ignore[arg-type]


@pytest.mark.parametrize("levels", [[0.8], [0.95], [0.8, 0.85], [0.9, 0.5], [0.75, 0.75, 0.75]])
@pytest.mark.parametrize("seed", range(6))
def test_combined_scores_solve_the_linear_program_within_one_swap(
    levels: list[float], seed: int
) -> None:
    n, k = 60, 20
    scores = uniform_scores(n, 1 + len(levels), seed)

    def choose(score: dict[str, Tensor]) -> dict[str, Tensor]:
        return topk(score, k)  # type: ignore[return-value]

    flat = [unit(score) for score in scores]
    wanted = [
        level * np.sort(other)[-k:].sum() for level, other in zip(levels, flat[1:], strict=True)
    ]
    exact = linprog(
        -flat[0],
        A_ub=-np.array(flat[1:]),
        b_ub=-np.array(wanted),
        A_eq=np.ones((1, n)),
        b_eq=[k],
        bounds=(0, 1),
    )
    chosen = choose(combined(scores, levels, choose))["a"].numpy()  # type: ignore[arg-type]
    swap = len(levels) * np.ptp(flat[0])
    assert len(chosen) == k and flat[0][chosen].sum() >= -exact.fun - swap
    for other, least in zip(flat[1:], wanted, strict=True):
        assert other[chosen].sum() >= least - (0 if len(levels) == 1 else np.ptp(other))
    if len(levels) == 1:
        assert flat[0][chosen].sum() <= -exact.fun + 1e-12
        assert (
            exact.x[chosen] > 1e-9
        ).sum() >= k - 1  # one of them at most is not in the exact solution


def test_levels_trade_one_score_for_the_other() -> None:
    first, second = uniform_scores(80, 2, 3)
    values = []
    for level in (0.0, 0.7, 0.8, 0.9, 0.95, 1.0):
        mask = topk(combined([first, second], [level], lambda s: topk(s, 25)), 25)["a"]
        values.append((float(first["a"][mask].sum()), float(second["a"][mask].sum())))
    assert values == sorted(values, key=lambda v: (-v[0], v[1]))


def test_levels_that_cannot_be_met_are_refused() -> None:
    one = {"a": torch.arange(10.0)}
    other = {"a": torch.arange(10.0).flip(0)}
    third = {"a": torch.ones(10)}
    with pytest.raises(
        UserError,
        match=r"no mask meets all levels of the 2 constraints together. Lower method.levels",
    ):
        combined([third, one, other], [0.95, 0.95], lambda s: topk(s, 3))


def test_scores_to_combine_have_levels() -> None:
    for bad, message in (
        ({"subject_to": ("grasp",), "levels": (0.9, 0.9)}, "one number for each"),
        ({"subject_to": (), "levels": ()}, "one number"),
        ({"subject_to": ("grasp",), "levels": (1.5,)}, "each a fraction in"),
    ):
        with pytest.raises(UserError, match=message):
            COPS(**bad)  # type: ignore[arg-type]


# -- examples ------------------------------------------------------------------------------------
def digits(**changes: object) -> Digits:
    plain = {
        "val_fraction": 0.0,
        "resize": None,
        "mean": [0.0],
        "std": [1.0],
        "crop_padding": 0,
        "flip": True,
    }
    return Digits(**{**plain, **changes})  # type: ignore[arg-type]


def pixels(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.contiguous()}


def test_augmented_examples_to_score_with_are_mirrored_and_cropped_as_in_training() -> None:
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    data = digits()
    known = pixels(next(data.eval_batches("train", 10_000))[0])
    train = Train(net, data, RECIPE, seed=3)
    plain, (augmented, labels) = train.sample(200)[0], train.sample(200, augment=True)
    assert pixels(plain) <= known
    kept = [pixels(image[None]) <= known for image in augmented]
    mirrored = [pixels(image.flip(-1)[None]) <= known for image in augmented]
    assert all(a or b for a, b in zip(kept, mirrored, strict=True)) and 60 < sum(kept) < 140
    again = train.sample(200, augment=True)
    assert torch.equal(again[0], augmented) and torch.equal(again[1], labels)
    assert not torch.equal(Train(net, data, RECIPE, seed=4).sample(200, augment=True)[0], augmented)
    # not those of the first epoch
    assert not pixels(augmented) <= pixels(next(data.train_batches(200, 3, 0))[0])
    cropped = Train(net, digits(crop_padding=2, flip=False), RECIPE, seed=3).sample(
        50, augment=True
    )[0]
    assert cropped.shape == (50, 1, 8, 8) and not pixels(cropped) <= known


def test_augmented_examples_of_a_streamed_folder_are_random_parts_of_the_images(
    tmp_path: Path,
) -> None:
    noise = np.random.default_rng(0)
    for split, label, i in itertools.product(("train", "test"), "ab", range(4)):
        (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
        image = noise.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / split / label / f"{i}.png")
    data = imagefolder(
        name="noise",
        path=str(tmp_path),
        in_memory=False,
        val_fraction=0.0,
        resize=16,
        workers=0,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        crop_padding=0,
        flip=False,
        channels=3,
    )
    train = Train(Net(nn.Sequential(nn.Flatten(), nn.Linear(768, 2))), data, RECIPE, seed=3)
    (plain, _), (augmented, labels) = train.sample(8), train.sample(8, augment=True)
    assert plain.shape == augmented.shape == (8, 3, 16, 16)
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4
    assert not pixels(plain) & pixels(augmented)
    assert torch.equal(train.sample(8, augment=True)[0], augmented)


@pytest.mark.parametrize("kind", [SNIP, FreezeNet, GraSP, CroP, ProsPr, COPS, IterSNIP, FORCE])
def test_methods_score_on_augmented_examples_if_asked(kind: type) -> None:
    seen: list[bool] = []
    net, train = set_up()
    sample = train.sample
    # type: ignore
    train.sample = lambda n, augment=False: (seen.append(augment), sample(n, augment))[1]
    for augment in (False, True):
        make(kind, augment=augment).choose(net, train)
    assert seen == [False, True]


@pytest.mark.parametrize("kind", [SNIP, CroP, ProsPr, COPS, IterSNIP, FORCE])
def test_more_examples_than_there_are_are_refused(kind: type) -> None:
    for examples in (64, 65):  # blobs have 64
        net, train = set_up()
        method = make(kind, examples=examples)
        if examples == 64:
            method.choose(net, train)
        else:
            with pytest.raises(UserError, match=r"method.examples=65 .* Choose method.examples=64"):
                method.choose(net, train)


def test_no_examples_and_batches_larger_than_the_data_are_errors_that_name_the_key() -> None:
    net, train = set_up()
    with pytest.raises(
        UserError, match=r"method.examples=0 is not allowed. It must be a whole number"
    ):
        SNIP(sparsity=0.8, allocation=Global(), base="zero", ablation="none", examples=0).choose(
            net, train
        )
    with pytest.raises(
        UserError, match=r"method.transfer_batch_size=65 .* 64 or less: blobs has 64 training"
    ):
        NTT(
            sparsity=0.8,
            allocation=Global(),
            base="zero",
            ablation="none",
            transfer_steps=2,
            transfer_lr=1e-3,
            transfer_batch_size=65,
            kernel_weight=1e-3,
            weight_decay=0.0,
            update_every=1,
        ).choose(net, train)
