"""Lottery tickets against closed forms and truth tables."""

from __future__ import annotations

import itertools
import logging
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import Blobs, set_up, watch

from dimred.errors import UserError
from dimred.methods.lottery_tickets.continuous_sparsification import (
    ContinuousSparsification,
    SoftMask,
)
from dimred.methods.lottery_tickets.early_bird import EarlyBird
from dimred.methods.lottery_tickets.imp import CRITERIA, IMP, prune, scores
from dimred.methods.reference_networks import Dense
from dimred.net import Net
from dimred.select.allocations import Global, Uniform
from dimred.select.topk import topk
from dimred.training.loop import Train


# -- IMP -----------------------------------------------------------------------------------------
def test_imp_rounds_keep_four_fifths_each_and_end_at_the_density() -> None:
    assert IMP(sparsity=0.2).rounds() == 1
    assert IMP(sparsity=0.36).rounds() == 2
    assert IMP(sparsity=0.95).rounds() == 14
    assert IMP(sparsity=0.95, prune_rate=1.0).rounds() == 1
    assert IMP(sparsity=0.0).rounds() == 0


@pytest.mark.parametrize("rewind", [0, 12])
def test_imp_masks_are_nested_and_weights_rewind_to_the_bit(rewind: int) -> None:
    net, train = set_up()
    starts: list[dict[str, Tensor]] = []
    ticket: dict[str, Tensor] = {}
    dims: list[int] = []
    restore = net.restore

    def restored(state: dict[str, Tensor]) -> None:
        restore(state)
        ticket.update(state)
        starts.append({name: w.dense().clone() for name, w in net.weights.items()})
        dims.append(net.dim)

    net.restore = restored  # type: ignore[method-assign, assignment]
    IMP(sparsity=0.7, prune_rate=0.3, rewind_step=rewind).run(net, train)
    assert dims == [round(0.7**k * net.total) for k in (1, 2, 3)] + [round(0.3 * net.total)]
    for earlier, later in itertools.pairwise(starts):
        assert all(not (later[n] != 0)[earlier[n] == 0].any() for n in net.weights)
    for name, theta in starts[-1].items():
        kept = theta != 0
        assert torch.equal(theta[kept], ticket[f"psi/{name}"][kept])
    if rewind == 0:
        assert all(torch.equal(ticket[f"psi/{n}"], net.initial()[n].view(-1)) for n in net.weights)


def test_imp_with_learning_rate_rewinding_leaves_weights_where_they_are() -> None:
    net, train = set_up()
    rates: list[float] = []
    watch(train, lambda t: rates.append(train.optimizer.param_groups[0]["lr"]))
    net.restore = None  # type: ignore[method-assign, assignment] (calling it would fail)
    IMP(sparsity=0.75, prune_rate=0.5, rewind_step=10, rewind="lr").run(net, train)
    assert len(rates) == 40 + 30 + 30 and net.dim == round(0.25 * net.total)


def test_one_shot_imp_prunes_the_smallest_trained_weights() -> None:
    dense, train = set_up()
    Dense().run(dense, train)
    largest = topk({n: t.abs() for n, t in dense.dense_weights().items()}, round(0.2 * dense.total))
    net, train = set_up()
    IMP(sparsity=0.8, prune_rate=1.0).run(net, train)
    assert all(torch.equal(w.support, largest[name]) for name, w in net.weights.items())


def test_rewinding_past_the_end_is_an_error() -> None:
    net, train = set_up()
    with pytest.raises(UserError, match="cannot train from step 0 to 41: training has 40 steps"):
        IMP(sparsity=0.8, rewind_step=41).run(net, train)


def test_one_shot_is_imp_with_one_round() -> None:
    nets = []
    for rate in (1.0, 0.8):
        net, train = set_up()
        IMP(sparsity=0.8, prune_rate=rate, rewind_step=3).run(net, train)
        assert train.steps_done == 40 + 37
        nets.append(net.state())
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


def test_fine_tuning_takes_as_many_steps_as_from_rewind_to_the_end_at_the_last_learning_rate() -> (
    None
):
    net, train = set_up(schedule="step", milestones=(0.5, 0.75))
    rates: list[float] = []
    watch(train, lambda t: rates.append(train.optimizer.param_groups[0]["lr"]))
    net.restore = None  # type: ignore[method-assign, assignment] (calling it would fail)
    IMP(sparsity=0.75, prune_rate=0.5, rewind_step=10, rewind="none").run(net, train)
    expected = [0.1] * 20 + [0.01] * 10 + [0.001] * 10 + [0.001] * 60
    assert rates == pytest.approx(expected)


def test_imp_counts_round_the_density_or_what_is_left_down() -> None:
    """Of 828: 828 * 0.8^k = 662.4, 529.9, 423.9, 339.1; down: 662, 0.8 * 662 = 529.6, 0.8 * 529 =
    423.2, 338.4."""

    def counts(how: Any, sparsity: float) -> list[int]:
        return IMP(sparsity=sparsity, rounding=how).counts_left(828)

    assert counts("nearest", 0.5904) == [662, 530, 424, 339]
    assert counts("floor", 0.5904) == [662, 529, 423, 339]  # 0.4096 * 828 = 339.1 are asked for
    assert counts("floor", 0.6) == [662, 529, 423, 338, 331] and counts("nearest", 0.6)[-1] == 331
    net, train = set_up(steps=4)
    IMP(sparsity=0.7, prune_rate=0.3, rounding="floor").run(net, train)
    assert net.dim == 248 and round(0.3 * net.total) == 248


@pytest.mark.parametrize("what", ["weights", "lr"])
def test_with_fresh_momentum_every_training_from_the_rewind_point_on_begins_without_any(
    what: Any,
) -> None:
    momentum: dict[bool, list[bool]] = {}
    for fresh in (False, True):
        net, train = set_up()
        seen = momentum.setdefault(fresh, [])

        def look(t: int, net: Net = net, seen: list[bool] = seen) -> None:
            seen.append(any(net.optimizer_state.of(w.psi) for w in net.weights.values()))

        watch(train, look, "before_step")
        IMP(sparsity=0.75, prune_rate=0.5, rewind_step=10, rewind=what, reset_momentum=fresh).run(
            net, train
        )
    starts = [10, 40, 70]  # of trainings from step 10 on, counted over all
    assert momentum[False] == [i > 0 for i in range(100)]
    assert momentum[True] == [i > 0 and i not in starts for i in range(100)]


def test_fresh_momentum_makes_no_difference_where_all_of_training_is_rewound() -> None:
    states = []
    for fresh in (False, True):
        net, train = set_up()
        IMP(sparsity=0.75, prune_rate=0.5, reset_momentum=fresh).run(net, train)
        states.append(net.state())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("allocation", [Global(), Uniform()])
def test_the_output_layer_is_pruned_at_half_the_rate_and_the_others_make_up_for_it(
    allocation: Any,
) -> None:
    """Sizes 36, 768 and 24, a quarter of all pruned in each of two rounds, then to 400: the output
    layer loses an eighth and an eighth and half of (466 - 400) / 466: 24 -> 21 -> 18 (of 18.4) ->
    17 (of 16.7)."""
    seen: list[list[int]] = []
    net, train = set_up(steps=4)
    keep = net.keep

    def kept(supports: Any, **how: Any) -> None:
        keep(supports, **how)
        seen.append([w.dim for w in net.weights.values()])

    net.keep = kept  # type: ignore[method-assign, assignment]
    IMP(
        sparsity=1 - 400 / 828, allocation=allocation, prune_rate=0.25, output_at_half_rate=True
    ).run(net, train)
    assert [sum(dims) for dims in seen] == [621, 466, 400]
    assert [dims[2] for dims in seen] == [21, 18, 17]
    # 600 of 804: 26.9 and 573.1; 448: 20.1 and 427.9; 383: 17.1 and 365.9
    if isinstance(allocation, Uniform):
        assert [dims[:2] for dims in seen] == [[27, 573], [20, 428], [17, 366]]
    net, train = set_up(steps=4)
    IMP(sparsity=0.5, allocation=allocation, prune_rate=1.0, output_at_half_rate=True).run(
        net, train
    )
    assert net.dim == 414 and net.weights["6.weight"].dim == 18  # one round: half of 50 %


def test_the_output_layer_has_no_rate_where_it_is_not_covered() -> None:
    _, train = set_up(steps=4)
    for cover in ({"exclude": ["7"]}, {"include": ["7.weight"]}):
        net = Net(chain(), **cover)  # type: ignore[arg-type]
        with pytest.raises(
            UserError, match=r"method.output_at_half_rate=true .* 7.weight, the output"
        ):
            IMP(sparsity=0.5, prune_rate=1.0, output_at_half_rate=True).run(
                net, Train(net, Blobs(), train.recipe)
            )


FINAL = torch.tensor([3.0, -1.0, 0.5, 4.0, -2.0])
INIT = torch.tensor([1.0, -2.0, 0.6, -0.5, -1.9])


@pytest.mark.parametrize(
    "criterion, expected",
    [
        ("large_final", [3.0, 1.0, 0.5, 4.0, 2.0]),
        ("small_final", [-3.0, -1.0, -0.5, -4.0, -2.0]),
        ("large_init", [1.0, 2.0, 0.6, 0.5, 1.9]),
        ("small_init", [-1.0, -2.0, -0.6, -0.5, -1.9]),
        ("magnitude_increase", [2.0, -1.0, -0.1, 3.5, 0.1]),
        ("movement", [2.0, 1.0, 0.1, 4.5, 0.1]),
        ("large_final_same_sign", [3.0, 1.0, 0.5, 0.0, 2.0]),
        ("magnitude_increase_same_sign", [2.0, -1.0, -0.1, 0.0, 0.1]),
        # ranks by |init|: 3 5 2 1 4, by |final|: 4 2 1 5 3, of 5; the lower of the two
        ("large_init_large_final", [0.6, 0.4, 0.2, 0.2, 0.6]),
        # from below: 3 1 4 5 2 and 2 4 5 1 3
        ("small_init_small_final", [0.4, 0.2, 0.8, 0.2, 0.4]),
    ],
)
def test_criteria_are_those_of_the_table(criterion: str, expected: list[float]) -> None:
    assert torch.allclose(CRITERIA[criterion](FINAL, INIT), torch.tensor(expected))


@pytest.mark.parametrize("criterion", [*CRITERIA, "random"])
def test_criteria_score_what_is_trained_and_are_nested(criterion: Any) -> None:
    net, train = set_up()
    train(0, 8)
    net.keep(topk(scores(net, criterion), 300))
    before = {name: w.trained() for name, w in net.weights.items()}
    score = scores(net, criterion)
    for name, w in net.weights.items():
        assert torch.equal(score[name].view(-1) == -torch.inf, ~w.trained())
    net.keep(topk(score, 100))
    assert net.dim == 100 and all(
        not (w.trained() & ~before[name]).any() for name, w in net.weights.items()
    )


@pytest.mark.parametrize(
    "criterion", ["large_init", "movement", "random", "large_init_large_final"]
)
def test_imp_by_any_criterion_ends_at_the_density(criterion: Any) -> None:
    net, train = set_up(steps=6)
    IMP(sparsity=0.7, allocation=Uniform(), prune_rate=0.5, rewind_step=2, criterion=criterion).run(
        net, train
    )
    assert net.dim == round(0.3 * net.total)


def test_pruned_weights_take_the_value_that_they_moved_towards() -> None:
    layer = nn.Linear(6, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0, 6.0]]))
    net = Net(layer)
    net.has_trained = True
    with torch.no_grad():
        net.weights["weight"].psi.copy_(torch.tensor([0.5, -2.5, -3.0, 3.0, 7.0, 8.0]))
    prune(net, {"weight": torch.tensor([4, 5])}, "zero_or_init")
    # 1 -> 0.5: smaller, zero;  -2 -> -2.5: larger, init;  3 -> -3: not smaller, init;  -4 -> 3:
    # smaller, zero
    assert net.dense_weights()["weight"].view(-1).tolist() == [0.0, -2.0, 3.0, 0.0, 7.0, 8.0]
    prune(net, {"weight": torch.tensor([5])}, "zero_or_init")
    assert (
        net.dense_weights()["weight"].view(-1).tolist() == [0.0, -2.0, 3.0, 0.0, 5.0, 8.0]
        and net.dim == 1
    )


@pytest.mark.parametrize("what", ["weights", "lr"])
def test_imp_freezes_pruned_weights_at_their_initial_value_or_at_zero(what: Any) -> None:
    for pruned in ("init", "zero_or_init"):
        net, train = set_up()
        IMP(sparsity=0.7, prune_rate=0.5, rewind_step=4, rewind=what, pruned_value=pruned).run(
            net, train
        )  # type: ignore[arg-type]
        zeros, others = 0, 0
        for name, w in net.weights.items():
            held, initial = w.dense()[~w.trained()], net.initial()[name].view(-1)[~w.trained()]
            assert ((held == 0) | (held == initial)).all()
            zeros, others = zeros + int((held == 0).sum()), others + int((held != 0).sum())
        assert (
            net.dim == round(0.3 * net.total)
            and others > 0
            and (zeros > 0) == (pruned == "zero_or_init")
        )


# -- continuous sparsification -------------------------------------------------------------------
def test_the_soft_mask_starts_at_one_and_hardens_to_zero_and_one() -> None:
    theta = torch.randn(3, 4)
    for start in (-0.3, -0.01, 0.1):
        mask = SoftMask(theta, start, 0.0)
        assert torch.allclose(mask(theta), theta)
        with torch.no_grad():
            mask.s.copy_(torch.linspace(-1, 1, 12).view(3, 4))
        mask.beta.fill_(1e6)
        hard = theta * (mask.s > 0) * (1 + math.exp(-start))
        assert torch.allclose(mask(theta), hard)


def test_a_reset_lets_no_pruned_weight_back_and_gives_others_their_start() -> None:
    mask = SoftMask(torch.zeros(4), -0.01, 0.0)
    with torch.no_grad():
        mask.s.copy_(torch.tensor([-0.5, -1e-5, 1e-5, 0.5]))
    mask.beta.fill_(200.0)
    mask.reset()
    assert torch.allclose(mask.s, torch.tensor([-100.0, -0.01, -0.01, -0.01])) and mask.beta == 1


def test_the_penalty_on_the_mask_is_the_sum_of_its_entries() -> None:
    mask = SoftMask(torch.zeros(5), 0.0, 0.1)
    assert torch.allclose(mask.penalty(torch.zeros(5)), torch.tensor(0.25))


def test_continuous_sparsification_anneals_every_round_and_rewinds_the_weights_that_it_chose() -> (
    None
):
    net, train = set_up(steps=20)
    betas: list[float] = []
    restored: list[dict[str, Tensor]] = []
    restore = net.restore

    def restoring(state: dict[str, Tensor]) -> None:
        soft = net.transforms["0.weight"]
        restored.append({"s": soft.s.detach().clone(), "then": state["psi/0.weight"]})  # type: ignore[operator]
        restore(state)
        restored[0]["now"], restored[0]["trained"] = (
            net.weights["0.weight"].dense().clone(),
            net.weights["0.weight"].trained(),
        )

    net.restore = restoring  # type: ignore[method-assign, assignment]
    watch(train, lambda t: betas.append(float(getattr(net.transforms["0.weight"], "beta", 0.0))))
    ContinuousSparsification(sparsity=0.8, allocation=Uniform(), rounds=2, rewind_step=4).run(
        net, train
    )
    annealed = [200 ** ((t + 1) / 20) for t in range(20)]
    assert betas == pytest.approx(annealed * 2 + [0.0] * 16, rel=1e-5) and net.dim == round(
        0.2 * net.total
    )
    assert not net.transforms and len(restored) == 1
    (seen,) = restored
    assert seen["s"].view(-1)[seen["trained"]].min() >= seen["s"].view(-1)[~seen["trained"]].max()
    assert torch.equal(seen["now"][seen["trained"]], seen["then"][seen["trained"]])
    assert not seen["now"][~seen["trained"]].any()


# -- early birds ---------------------------------------------------------------------------------
def chain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 2),
    )


def bird(**recipe: object) -> tuple[Net, Train, EarlyBird]:
    _, train = set_up(epochs=10, **recipe)
    net = Net(chain(), seed=3)
    return (
        net,
        Train(net, Blobs(), train.recipe, seed=3),
        EarlyBird(sparsity=0.5, count="channels", search_until=0.9),
    )


def pruned_at(net: Net, train: Train) -> list[int]:
    steps: list[int] = []
    watch(train, lambda t: steps.append(t) if net.dim < net.total else None)
    return steps


def test_an_early_bird_is_found_when_the_queue_is_full_and_its_masks_agree() -> None:
    net, train, method = bird(lr=1e-9)  # scales keep their order
    with torch.no_grad():
        net.uncovered["1.weight"].copy_(torch.arange(1.0, 9.0))
        net.uncovered["4.weight"].copy_(torch.arange(8.0, 0.0, -1.0))
    steps = pruned_at(net, train)
    method.run(net, train)
    assert (
        steps[0] == 5 * 8 and len(steps) == 40
    )  # after five epochs of eight steps, and to the end
    kept = net.dense_weights()["0.weight"].flatten(1).any(1)
    assert kept.tolist() == [False] * 4 + [True] * 4 and not net.transforms


def test_masks_agree_where_there_are_enough_and_all_are_near_the_newest() -> None:
    masks = torch.ones(3, 10, dtype=torch.bool)
    method = EarlyBird(sparsity=0.5, count="channels", masks=3)
    assert [method.agree(masks[:n]) for n in (1, 2, 3)] == [False, False, True]
    masks[2, 0] = False
    assert method.agree(masks)  # one of ten apart
    masks[2, 1] = False
    assert not method.agree(masks)  # two of ten from the oldest


def test_an_early_bird_that_is_not_found_is_drawn_at_the_end_of_the_search(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("dimred"), "propagate", True)
    net, train, method = bird()
    with torch.no_grad():
        net.uncovered["1.weight"].copy_(torch.arange(1.0, 9.0))

    def shuffle(t: int) -> None:
        if net.dim == net.total:
            with torch.no_grad():
                net.uncovered["1.weight"].copy_(net.uncovered["1.weight"].roll(3))

    watch(train, shuffle)
    steps = pruned_at(net, train)
    with caplog.at_level(logging.INFO, "dimred"):
        method.run(net, train)
    assert steps[0] == 72 and "their mask is not stable yet" in caplog.text


def test_the_penalty_pulls_scales_to_zero_until_the_bird_is_found() -> None:
    net, train, method = bird(lr=0.01, momentum=0.0)
    before = net.uncovered["1.weight"].detach().clone()

    def without_gradient(t: int) -> None:
        for parameter in net.parameters().values():
            parameter.grad = torch.zeros_like(parameter)

    watch(train, without_gradient, "after_backward")
    method.run(net, train)
    pulled = 41  # steps: the last of them the one that finds it
    assert torch.allclose(net.uncovered["1.weight"], before - 0.01 * 1e-4 * pulled)


def test_early_bird_refuses_a_model_without_norms() -> None:
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)))
    _, train = set_up()
    with pytest.raises(
        UserError, match="early_bird needs norms with a scale for each channel, and Sequential has"
    ):
        EarlyBird(sparsity=0.5, count="channels").run(net, train)
