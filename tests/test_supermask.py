"""Strong tickets: which scores train, which weights never do, and the masks that follow."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
import torch
from toy import model, set_up, trained, watch

from dimred.errors import UserError
from dimred.methods.supermasks.base import weights_of
from dimred.methods.supermasks.bernoulli import Bernoulli, BernoulliSupermask
from dimred.methods.supermasks.edge_popup import EdgePopup, IterRand, TopK
from dimred.methods.supermasks.rare_gems import Gem, RareGems
from dimred.methods.supermasks.signed import SignedSupermask, Ternary
from dimred.net import Net
from dimred.select.allocations import ERK, Allocation, Global, Uniform
from dimred.training.loop import Train

SCORE = torch.tensor([[0.5, -0.9, 0.1], [-0.3, 0.4, -0.2]])
THETA = torch.tensor([[1.0, -2.0, 3.0], [4.0, -5.0, 6.0]])
POPUP, RAND = (
    EdgePopup(sparsity=0.6, allocation=Uniform(), weights="init", scale_fan=False),
    IterRand(
        sparsity=0.6, allocation=Uniform(), scale_fan=False, randomize_every=7, randomize_rate=0.5
    ),
)
SIGNED = SignedSupermask(sparsity=0.6, allocation=Uniform())
BERNOULLI = BernoulliSupermask(sparsity=0.6, allocation=Uniform(), score_lr_scale=30.0)


def fingerprint(net: Net) -> str:
    """Of everything but scores: the model as it lies in memory."""
    digest = hashlib.sha256()
    for name, tensor in net.model.state_dict().items():
        if "running" not in name and "batches" not in name:
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


# -- edge-popup ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "method", [POPUP, SIGNED, BERNOULLI], ids=lambda method: type(method).__name__
)
def test_no_weight_bias_or_norm_is_ever_trained(method: EdgePopup) -> None:
    net, train = set_up()
    before = fingerprint(net)
    method.search(net, train, method.add_masks(net))
    assert fingerprint(net) == before
    scores = net.total
    assert net.dim == scores == sum(p.numel() for p in net.parameters().values() if p.requires_grad)


@pytest.mark.parametrize("allocation", [Uniform(), ERK(power=1.0)])
@pytest.mark.parametrize("kind", [EdgePopup, IterRand, SignedSupermask, BernoulliSupermask])
def test_each_layer_uses_exactly_as_many_weights_as_it_was_allotted(
    kind: Any, allocation: Allocation
) -> None:
    net, train = set_up(steps=12)
    more = {
        EdgePopup: {"scale_fan": False},
        IterRand: {"scale_fan": False, "randomize_every": 5, "randomize_rate": 0.5},
        SignedSupermask: {"scale_fan": False, "score_lr_scale": 1.0},
        BernoulliSupermask: {"rescale": False, "score_lr_scale": 9.0},
    }
    counts = allocation(net, 0.3)
    kind(sparsity=0.7, allocation=allocation, weights="init", **more[kind]).run(net, train)
    assert {name: w.dim for name, w in net.weights.items()} == counts and net.dim == round(
        0.3 * net.total
    )
    assert not net.transforms and all(
        int(value.count_nonzero()) == counts[name]
        for name, value in net.effective_weights().items()
    )


def test_a_mask_counts_biases_that_are_zero() -> None:
    """The shift of a norm starts at zero and stays there."""
    _, train = set_up(steps=3)
    for sparsity in (0.0, 0.5):
        net = Net(model(), include=["."])
        train = Train(net, train.data, train.recipe)
        EdgePopup(sparsity=sparsity, allocation=Uniform(), weights="init", scale_fan=False).run(
            net, train
        )
        assert (
            net.dim == round((1 - sparsity) * net.total) and not net.dense_weights()["1.bias"].any()
        )


def test_edge_popup_uses_the_largest_scores_and_all_train_by_gradient_times_weight() -> None:
    popup = TopK(SCORE, 3, "init", False)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    assert torch.equal(popup.mask(), mask) and torch.equal(popup(THETA), THETA * mask)
    upstream = torch.arange(6.0).view(2, 3) + 1
    (popup(THETA) * upstream).sum().backward()
    assert torch.equal(
        popup.score.grad, upstream * THETA * SCORE.sign()
    )  # dL/d|score| = dL/dE theta


def test_weights_are_as_initialised_or_signed_constants_and_grow_with_the_sparsity() -> None:
    assert torch.equal(weights_of(THETA, "init"), THETA)
    assert torch.allclose(weights_of(THETA, "signed_constant"), THETA.sign() * math.sqrt(2 / 3))
    kernel = torch.randn(4, 2, 3, 3)
    assert torch.allclose(
        weights_of(kernel, "signed_constant").abs(), torch.tensor(math.sqrt(2 / 18))
    )
    dense, scaled = (TopK(SCORE, 3, "signed_constant", scale)(THETA) for scale in (False, True))
    assert torch.allclose(scaled, dense * math.sqrt(2))


def test_a_trained_mask_is_another_one_and_better() -> None:
    net, train = set_up(epochs=20)
    POPUP.add_masks(net)
    before, untrained = net.transforms["4.weight"].mask(), train.evaluate("test")  # type: ignore[operator]
    train()
    after = net.transforms["4.weight"].mask()  # type: ignore[operator]
    assert not torch.equal(before, after) and train.evaluate("test")[0] < untrained[0]


def test_scores_need_an_allocation_for_each_layer() -> None:
    for method in (
        EdgePopup(sparsity=0.5, allocation=Global(), weights="init"),
        SignedSupermask(sparsity=0.5, allocation=Global(), weights="init", score_lr_scale=1.0),
    ):
        with pytest.raises(
            UserError, match="Choose another allocation, such as allocation=uniform"
        ):
            method.run(*set_up())


# -- iter rand -----------------------------------------------------------------------------------
def test_iter_rand_ranks_scores_with_their_signs_and_they_have_the_gradient_of_the_mask() -> None:
    signed = TopK(SCORE, 3, "init", False, signed=True)
    largest = SCORE.view(-1).argsort()[-3:].tolist()
    assert signed.mask().view(-1).nonzero().view(-1).tolist() == sorted(largest)
    upstream = torch.arange(6.0).view(2, 3) + 1
    (signed(THETA) * upstream).sum().backward()
    assert torch.equal(signed.score.grad, upstream * THETA)  # type: ignore[arg-type]


class SignedPopup(EdgePopup):
    signed = True


def test_iter_rand_without_a_chance_to_be_drawn_is_edge_popup_by_signed_scores() -> None:
    states = []
    for method in (
        SignedPopup(sparsity=0.6, allocation=Uniform(), weights="init", scale_fan=False),
        IterRand(
            sparsity=0.6,
            allocation=Uniform(),
            scale_fan=False,
            randomize_every=7,
            randomize_rate=0.0,
        ),
    ):
        states.append(trained(method).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_a_draw_changes_unused_weights_alone_with_its_probability(probability: float) -> None:
    net, _ = set_up()
    method = IterRand(
        sparsity=0.5,
        allocation=Uniform(),
        scale_fan=False,
        randomize_every=7,
        randomize_rate=probability,
    )
    found = method.add_masks(net)
    net.has_trained = True
    for _ in range(2):  # the second from weights that are not the initial ones any more
        masks = {name: each.mask() for name, each in found.items()}
        before = {name: theta.clone() for name, theta in net.dense_weights().items()}
        method.redraw(net, found)
        changed = {name: theta != before[name] for name, theta in net.dense_weights().items()}
        assert all(not (changed[name] & masks[name]).any() for name in masks)
        n, k = (
            sum(int((~m).sum()) for m in masks.values()),
            sum(int(c.sum()) for c in changed.values()),
        )
        spread = math.sqrt(n * probability * (1 - probability))
        assert abs(k - probability * n) < 4 * spread + 5  # a few draw themselves
    for name, theta in net.dense_weights().items():
        assert torch.isin(theta, net.initial()[name]).all()  # the layer's own distribution


def test_two_draws_differ_and_the_same_run_draws_the_same() -> None:
    def redrawn() -> list[torch.Tensor]:
        net, _ = set_up()
        masks = RAND.add_masks(net)
        net.has_trained, out = True, []
        for _ in range(2):
            RAND.redraw(net, masks)
            out.append(net.dense_weights()["4.weight"].clone())
        return out

    first, again = redrawn(), redrawn()
    assert (
        torch.equal(first[0], again[0])
        and torch.equal(first[1], again[1])
        and not torch.equal(*first)
    )


# -- signed supermasks ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    "threshold, expected",
    [
        (None, [[1.0, -1.0, 0.0], [0.0, 1.0, 0.0]]),
        (0.25, [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]),
        (0.0, [[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]]),
        (1.0, [[0.0] * 3] * 2),
    ],
)
def test_a_signed_mask_is_minus_one_zero_or_one(
    threshold: float | None, expected: list[list[float]]
) -> None:
    signed = Ternary(SCORE, 3, "init", False, threshold)
    assert torch.equal(signed.mask(), torch.tensor(expected))
    assert torch.equal(signed(THETA), THETA * torch.tensor(expected))
    upstream = torch.arange(6.0).view(2, 3) + 1
    (signed(THETA) * upstream).sum().backward()
    assert torch.equal(signed.score.grad, upstream * THETA)


def test_a_signed_supermask_flips_signs_of_constants() -> None:
    net = trained(SIGNED)
    flipped = 0
    for name, value in net.effective_weights().items():
        initial = net.initial()[name]
        constant = math.sqrt(2 / initial[0].numel() * initial.numel() / net.weights[name].dim)
        used = value != 0
        assert torch.allclose(value[used].abs(), torch.tensor(constant))
        flipped += int((value[used].sign() != initial[used].sign()).sum())
    assert 0 < flipped < net.dim


# -- Bernoulli supermasks ------------------------------------------------------------------------
def test_a_bernoulli_mask_is_drawn_with_its_probabilities_and_anew_in_every_step() -> None:
    bernoulli = Bernoulli(torch.zeros(2, 500), 250, "init", True, 7)
    # as dense as was asked for
    assert torch.allclose(bernoulli.score.sigmoid(), torch.tensor(0.25))
    with torch.no_grad():
        bernoulli.score[1] = 2.0  # sigmoid: 0.881
    first, again = bernoulli.mask(), bernoulli.mask()
    bernoulli.uniform.copy_(bernoulli.drawn(1))
    second = bernoulli.mask()
    assert torch.equal(first, again) and not torch.equal(first, second)
    counts = (first.int() + second.int()).sum(1).tolist()  # of 1000: 250 and 881 are expected
    assert abs(counts[0] - 250) < 5 * math.sqrt(188) and abs(counts[1] - 881) < 5 * math.sqrt(105)
    bernoulli.eval()
    assert bernoulli.mask().sum(1).tolist() == [0, 250]  # the most probable ones


def test_scores_of_a_bernoulli_mask_shift_until_as_many_weights_as_asked_for_are_expected() -> None:
    bernoulli = Bernoulli(THETA, 2, "init", True, 0)
    with torch.no_grad():
        bernoulli.score.zero_()
    bernoulli.advance(1)  # sum p = 3 of 6, two are asked for, its slope is 6 * 0.25
    assert torch.allclose(bernoulli.score, torch.tensor(-1 / 1.5))
    assert torch.equal(bernoulli.uniform, bernoulli.drawn(1))
    with torch.no_grad():
        bernoulli.score.copy_(SCORE * 20)
    for step in range(2, 40):
        bernoulli.advance(step)
    assert torch.allclose(bernoulli.score.sigmoid().sum(), torch.tensor(2.0))
    apart = bernoulli.score.detach() - SCORE * 20
    assert torch.allclose(apart, apart[0, 0].expand(2, 3), atol=1e-5)  # all by the same


def test_a_bernoulli_mask_is_rescaled_by_what_was_drawn_and_trains_its_probabilities() -> None:
    bernoulli = Bernoulli(THETA, 3, "init", False, 0)
    mask, upstream = bernoulli.mask().float(), torch.arange(6.0).view(2, 3) + 1
    assert 0 < mask.sum() < 6 and torch.equal(bernoulli(THETA), THETA * mask)
    (bernoulli(THETA) * upstream).sum().backward()
    slope = 0.5 * 0.5  # of the sigmoid, at a probability of one half
    assert torch.allclose(bernoulli.score.grad, upstream * THETA * slope)
    scaled = Bernoulli(THETA, 3, "init", True, 0)
    assert torch.allclose(scaled(THETA), THETA * mask * 6 / mask.sum())
    (scaled(THETA) * upstream).sum().backward()  # d/dm_i of 6 sum(u theta m) / sum(m)
    total, ones = (upstream * THETA * mask).sum(), mask.sum()
    expected = 6 * (upstream * THETA / ones - total / ones**2) * slope
    assert torch.allclose(scaled.score.grad, expected, rtol=1e-5)


def test_a_bernoulli_supermask_ends_as_constants_at_its_most_probable_weights() -> None:
    net, train = set_up(epochs=10)
    BERNOULLI.add_masks(net)
    untrained, random = train.evaluate("test"), torch.get_rng_state()
    assert untrained == train.evaluate("test")  # nothing is drawn there
    net, train = set_up(epochs=10)
    masks = BERNOULLI.add_masks(net)
    BERNOULLI.search(net, train, masks)
    seen = {name: each.score.detach().clone() for name, each in masks.items()}
    assert train.evaluate("test")[0] < untrained[0] and torch.equal(random, torch.get_rng_state())
    used = {name: each.eval().mask() for name, each in masks.items()}
    net.keep({name: mask.view(-1).nonzero().view(-1) for name, mask in used.items()}, merge=True)
    assert net.dim == round(0.4 * net.total)
    for name, w in net.weights.items():
        constant = math.sqrt(2 / w.param[0].numel()) * w.size / w.dim
        assert torch.allclose(w.psi.abs(), torch.tensor(constant))
        assert torch.equal(w.psi.sign(), w.gather(net.initial()[name].view(-1)).sign())
        score = seen[name].view(-1)
        assert score[w.trained()].min() >= score[~w.trained()].max()


# -- rare gems -----------------------------------------------------------------------------------
def test_gems_are_remaining_weights_with_a_score_above_one_half() -> None:
    gem = Gem(torch.tensor([[0.2, 0.7, 0.9], [0.6, 0.5, 1.0]]), 0.1, "init")
    gem.keep(torch.tensor([0, 1, 4, 5]))
    assert torch.equal(gem(THETA), THETA * torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    assert torch.allclose(gem.penalty(THETA), torch.tensor(0.1 * (0.04 + 0.49 + 0.25 + 1.0)))
    gem(THETA).sum().backward()
    assert torch.equal(gem.p.grad, THETA * torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))
    with torch.no_grad():
        gem.p.add_(torch.tensor([[-1.0, 0, 0], [0, 0, 1.0]]))
    gem(THETA)
    assert torch.allclose(gem.p, torch.tensor([[0.0, 0.7, 0.9], [0.6, 0.5, 1.0]]))
    assert gem.rank().view(-1)[[2, 3]].tolist() == [-math.inf, -math.inf]


@pytest.mark.parametrize("allocation", [Global(), Uniform()])
@pytest.mark.parametrize("prunings", [1, 4, 60])
def test_rare_gems_prune_to_the_target_and_train_what_is_left_from_its_values(
    prunings: int, allocation: Allocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, train = set_up()
    counts: list[int] = []
    first: dict[str, torch.Tensor] = {}
    keep, restarted = Gem.keep, train.scale_lr
    monkeypatch.setattr(
        Gem, "keep", lambda gem, kept: (keep(gem, kept), counts.append(len(kept)))[0]
    )

    def start(scales: Any) -> None:
        first.update({name: theta.clone() for name, theta in net.dense_weights().items()})
        restarted(scales)

    train.scale_lr = start  # type: ignore[method-assign]
    RareGems(sparsity=0.8, allocation=allocation, rounds=prunings, finetune_lr_scale=0.5).run(
        net, train
    )
    left = [sum(counts[i : i + 3]) for i in range(0, len(counts), 3)]
    assert left[-1] == net.dim == round(0.2 * net.total) and train.steps_done == 80
    if prunings == 4:
        assert left == [round(0.2 ** (j / 4) * net.total) for j in (1, 2, 3, 4)]
    for name, w in net.weights.items():
        initial = net.initial()[name]
        expected = (initial.sign() * math.sqrt(2 / initial[0].numel())).view(-1)
        assert torch.allclose(first[name].view(-1), expected.where(w.trained(), 0.0))
        assert (
            not w.dense()[~w.trained()].any()
            and (w.dense() != first[name].view(-1))[w.trained()].any()
        )
    assert all(p.requires_grad for p in net.uncovered.values())
    assert all(
        group["lr"] == 0.05 for group in train.optimizer.param_groups if group.get("scale") == 0.5
    )


def test_nothing_but_scores_trains_until_gems_are_found() -> None:
    net, train = set_up()
    before, during = fingerprint(net), []
    scale_lr = train.scale_lr
    train.scale_lr = lambda scales: during.append(None) or scale_lr(scales)  # type: ignore[method-assign, func-returns-value]
    method = RareGems(sparsity=0.5, weights="init", rounds=4, penalty=0.0, finetune_lr_scale=1e-30)

    def see(t: int) -> None:
        if not during:
            assert fingerprint(net) == before

    watch(train, see)
    method.run(net, train)
    assert during


def test_only_the_penalty_acts_on_gems() -> None:
    net, train = set_up(weight_decay=0.5, lr=0.1)
    seen: list[dict[str, torch.Tensor]] = []

    def without_gradient(t: int) -> None:
        gems = {name: gem.p for name, gem in net.transforms.items() if isinstance(gem, Gem)}
        for p in gems.values():
            p.grad = torch.zeros_like(p)
        seen.append({name: p.detach().clone() for name, p in gems.items()})

    watch(train, without_gradient, "after_backward")
    RareGems(sparsity=0.5, weights="init", rounds=1, penalty=0.0).run(net, train)
    assert len(seen[0]) == 3 and all(torch.equal(p, seen[9][name]) for name, p in seen[0].items())
