"""FreezeOut and AutoFreeze: layers that freeze one after another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy import set_up, watch

from dimred.methods.freezing.progressive import AutoFreeze, FreezeOut
from dimred.net.layers import layers_of


def test_a_layer_is_a_weight_with_what_follows_it() -> None:
    net, _ = set_up()
    assert layers_of(net) == [
        ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean"],
        ["4.weight", "4.bias"],
        ["6.weight", "6.bias"],
    ]


def test_freeze_out_rates_reach_zero_at_their_time_and_have_equal_integrals() -> None:
    method = FreezeOut(t_0=0.5, cubic=True, scale_lr=True)
    ends = [method.end(i, 3) for i in range(3)]
    assert ends == pytest.approx([0.125, 0.421875, 1.0])  # (1/2)^3, (3/4)^3, 1
    steps = 100_000
    for end in ends:
        assert method.lr(0.0, end) == pytest.approx(1 / end) and method.lr(end, end) == 0
        assert method.lr(0.99999 * end, end) < 1e-8
        integral = sum(method.lr(t / steps, end) for t in range(steps)) / steps
        assert integral == pytest.approx(0.5, abs=1e-4)
    assert [FreezeOut(t_0=0.5, cubic=False, scale_lr=False).end(i, 3) for i in range(3)] == [
        0.5,
        0.75,
        1.0,
    ]
    assert (
        FreezeOut(t_0=0.5, cubic=False, scale_lr=False).lr(0.25, 0.5) == 0.5
        and method.end(0, 1) == 1.0
    )


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_freeze_out_trains_each_layer_at_its_rate_whatever_the_recipes_schedule(
    schedule: str,
) -> None:
    net, train = set_up(schedule=schedule)
    method, seen = FreezeOut(t_0=0.5, cubic=True, scale_lr=True), list[dict[str, float]]()

    def see(t: int) -> None:
        rates = {
            id(p): group["lr"] for group in train.optimizer.param_groups for p in group["params"]
        }
        seen.append({name: rates[id(p)] for name, p in net.parameters().items()})

    watch(train, see)
    method.run(net, train)
    for i, names in enumerate(layers_of(net)):
        for t in range(40):
            rate = 0.1 * method.lr(t / 40, method.end(i, 3))
            assert all(seen[t][name] == pytest.approx(rate) for name in names if name in seen[t])
    assert (
        len(train.optimizer.param_groups) == 2 * 3
    )  # of each layer, what decays and what does not


def test_layers_frozen_by_freeze_out_are_not_computed_and_do_not_change() -> None:
    net, train = set_up()
    images = train.sample(8)[0]
    behind: list[tuple[bool, bool]] = []
    states: list[dict[str, Tensor]] = []

    def see(t: int) -> None:
        with net.weights_in_place() as model:  # in training mode
            hidden = model[:4](images)
            behind.append((hidden.requires_grad, model[4:6](hidden).requires_grad))
        states.append({name: value.clone() for name, value in net.state_dict().items()})

    watch(train, see)
    FreezeOut(t_0=0.5, cubic=True, scale_lr=True).run(net, train)
    assert behind == [(t < 5, t < 17) for t in range(40)]  # t_i = 5 and 16.875 of 40
    for layer, end in (
        ("0.", 5),
        ("1.", 6),
        ("4.", 17),
    ):  # statistics were those of step 5's batch, too
        assert all(
            torch.equal(states[end][name], states[-1][name])
            for name in states[0]
            if name.startswith(layer)
        )
    assert not torch.equal(states[4]["1.running_mean"], states[3]["1.running_mean"])


def test_a_frozen_norm_uses_its_statistics_in_training_after_evaluation_and_a_resume() -> None:
    net, train = set_up()
    net.freeze({"1.running_mean": None})
    train(0, 16)  # evaluates, and goes back to training mode
    assert (
        not net.model[1].training and net.model[0].training and not net.model[1].running_mean.any()
    )
    twin, _ = set_up()
    twin.load(net.state())
    assert not twin.model[1].training and twin.model[1].weight.requires_grad
    net.load(set_up()[0].state())
    assert net.model[1].training


def test_auto_freeze_counts_the_first_layers_below_the_percentile() -> None:
    now = torch.ones(5, dtype=torch.float64)
    cases = {
        (1.1, 1.2, 1.3, 9.0, 5.0): 2,
        (9.0, 1.0, 1.0, 1.0, 1.0): 0,
        (1.0, 1.0, 1.0, 1.0, 1.0): 0,
        (1.0, 9.0, 1.0, 9.0, 9.0): 1,
    }
    for (
        before,
        count,
    ) in cases.items():  # eta = 1 - 1 / before: the median of the first is that of 1.3
        assert (
            AutoFreeze(intervals=10, percentile=50.0).count_converged(
                torch.tensor(before, dtype=torch.float64), now
            )
            == count
        )
    dead = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    assert (
        AutoFreeze(intervals=10, percentile=50.0).count_converged(
            dead, torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
        )
        == 1
    )
    assert AutoFreeze(intervals=10, percentile=0.0).count_converged(dead, dead) == 0


def test_auto_freeze_compares_sums_of_gradients_of_two_intervals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, train = set_up()
    sums: list[dict[str, Tensor]] = [{} for _ in range(5)]

    def see(t: int) -> None:
        for name, w in net.weights.items():
            sums[t // 8][name] = sums[t // 8].get(name, 0) + w.psi.grad

    watch(train, see)
    calls: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(
        AutoFreeze, "count_converged", lambda self, *norms: calls.append(norms) or 0
    )
    AutoFreeze(intervals=5, percentile=50.0).run(net, train)
    norms = [
        torch.stack([total.abs().sum(dtype=torch.float64) for total in interval.values()])
        for interval in sums
    ]
    assert len(calls) == 4 and not net.method_state
    for k, (before, now) in enumerate(calls):
        assert torch.allclose(before, norms[k]) and torch.allclose(now, norms[k + 1])


def test_auto_freeze_freezes_a_prefix_that_only_grows_and_computes_nothing_below() -> None:
    net, train = set_up()
    images, counts = train.sample(8)[0], list[int]()

    def see(t: int) -> None:
        frozen = [not w.dim for w in net.weights.values()]
        counts.append(sum(frozen))
        assert frozen == sorted(frozen, reverse=True) and not frozen[-1]
        with net.weights_in_place() as model:
            assert model[:4](images).requires_grad == (not frozen[0]) and model[:6](
                images
            ).requires_grad == (not frozen[1])
        assert net.model[1].training == (not frozen[0])

    watch(train, see)
    AutoFreeze(intervals=5, percentile=75.0).run(net, train)
    assert counts == sorted(counts) and counts[14] == 0 and counts[-1] > 0
