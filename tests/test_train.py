"""The recipe, the training loop and its metrics."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import RECIPE, Blobs, set_up

from dimred.errors import UserError
from dimred.methods.pruning_at_init.single_shot import SNIP
from dimred.methods.reference_networks import Dense
from dimred.net import Net
from dimred.select.allocations import Global
from dimred.training.loop import Train
from dimred.training.recipe import Recipe


def recipe(**changes: object) -> Recipe:
    return dataclasses.replace(RECIPE, **changes)  # type: ignore[arg-type]


# -- the recipe ----------------------------------------------------------------------------------
def test_learning_rates_are_functions_of_the_step() -> None:
    step = recipe(schedule="step", milestones=(0.5, 0.75), lr=0.8)
    assert [step.lr_at(t, 100) for t in (0, 49, 50, 74, 75, 99)] == pytest.approx(
        [0.8, 0.8, 0.08, 0.08, 0.008, 0.008]
    )
    cosine = recipe(schedule="cosine", lr=0.8)
    assert [cosine.lr_at(t, 100) for t in (0, 50, 100)] == pytest.approx([0.8, 0.4, 0.0])
    warm = recipe(schedule="constant", warmup=0.1, lr=0.8)
    assert [warm.lr_at(t, 100) for t in (0, 4, 9, 10, 99)] == pytest.approx(
        [0.08, 0.4, 0.8, 0.8, 0.8]
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0},
        {"batch_size": 0},
        {"epochs": 0},
        {"steps": 0},
        {"weight_decay": -1},
        {"momentum": 1.0},
        {"warmup": 1.0},
        {"milestones": (0.5, 1.5)},
        {"clip": 0.0},
        {"label_smoothing": 1.0},
        {"momentum": 0.0, "nesterov": True},
    ],
)
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(
        UserError, match=r"recipe\.({})=.* is not allowed. It must be".format("|".join(wrong))
    ):
        recipe(**wrong)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_only_weights_decay_unless_all_are_told_to(kind: str) -> None:
    net, _ = set_up()
    groups = recipe(optimizer=kind).make_optimizer(net).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert all(
        decays[id(p)] == (1e-3 if name in net.weights else 0)
        for name, p in net.parameters().items()
    )
    assert len(decays) == len(net.parameters())
    groups = recipe(optimizer=kind, decay_all=True).make_optimizer(net).param_groups
    assert [group["weight_decay"] for group in groups] == [1e-3, 1e-3]


def test_biases_and_norms_shrink_by_decay_all_as_in_plain_sgd() -> None:
    """A step of SGD without a gradient is theta <- (1 - lr wd) theta."""
    net, train = set_up(decay_all=True, weight_decay=0.5, momentum=0.0, steps=1)
    before = {name: p.detach().clone() for name, p in net.parameters().items()}
    for _ in train.steps():
        for p in net.parameters().values():
            p.grad = torch.zeros_like(p)
    assert all(torch.allclose(p, 0.95 * before[name]) for name, p in net.parameters().items())


def test_an_orthogonal_weight_stays_orthogonal_and_trains() -> None:
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(16, 6))
    net = Net(nn.Sequential(nn.Flatten(), layer, nn.Linear(6, 2)))
    before = layer.weight.detach().clone()
    Train(net, Blobs(), recipe(weight_decay=0.1, steps=5))()
    torch.testing.assert_close(layer.weight @ layer.weight.T, torch.eye(6), atol=1e-5, rtol=0)
    assert not torch.allclose(layer.weight, before)


def test_the_loop_is_plain_sgd() -> None:
    net, train = set_up(steps=3, nesterov=True, label_smoothing=0.1, clip=0.5)
    plain, _ = set_up()
    model = plain.model.requires_grad_(True)
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 1e-3},
            {"params": [p for p in model.parameters() if p.dim() == 1]},
        ],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
    )
    for images, labels in list(Blobs().train_batches(8, 3, 0))[:3]:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels, label_smoothing=0.1).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    train()
    for (name, ours), theirs in zip(
        net.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6), name


@pytest.mark.parametrize("option", ["bf16", "channels_last", "compile"])
def test_options_of_speed_train_equally_well(option: str) -> None:
    net, train = set_up(**{option: True})
    SNIP(sparsity=0.8, allocation=Global(), base="zero", ablation="none", examples=32).run(
        net, train
    )
    assert train.evaluate("test")[1] > 0.8


# -- the loop ------------------------------------------------------------------------------------
def test_training_in_parts_is_training_at_once() -> None:
    whole, train = set_up()
    train()
    parts, train = set_up()
    train(0, 3)
    for _ in train.steps(3, 17):
        pass
    train(17)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True)
    )


def test_at_the_pause_theta_is_old_and_gradients_are_fresh() -> None:
    net, train = set_up(steps=2)
    before = {name: theta.clone() for name, theta in net.dense_weights().items()}
    for t in train.steps():
        if t == 0:
            assert all(
                torch.equal(theta, before[name]) for name, theta in net.dense_weights().items()
            )
            assert all(p.grad is not None for p in net.parameters().values())
            net.zero_grad()  # "take no step"
        else:
            assert all(
                torch.equal(theta, before[name]) for name, theta in net.dense_weights().items()
            )
    assert not torch.equal(net.dense_weights()["4.weight"], before["4.weight"])


def test_batches_are_the_same_whatever_the_method() -> None:
    class Watched(Blobs):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[torch.Tensor] = []

        def train_batches(self, batch_size: int, seed: int, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
            for images, labels in super().train_batches(batch_size, seed, epoch, start):
                self.seen.append(images)
                yield images, labels

    seen = []
    for method in (
        Dense(),
        SNIP(sparsity=0.9, allocation=Global(), base="zero", ablation="none", examples=16),
    ):
        net, _ = set_up()
        data = Watched()
        method.run(net, Train(net, data, RECIPE, seed=3))
        seen.append(torch.stack(data.seen))
    assert torch.equal(*seen) and len(seen[0]) == 40


def test_accuracy_counts_every_example_once() -> None:
    class Uneven(Blobs):
        def eval_batches(self, split: str, batch_size: int = 1024):  # type: ignore[no-untyped-def]
            images, labels = next(super().eval_batches(split))
            yield images[:15], labels[:15]
            yield images[15:], labels[15:]

    net, _ = set_up()
    images, labels = next(Blobs().eval_batches("test"))
    loss, accuracy = Train(net, Uneven(), RECIPE).evaluate("test")
    net.model.eval()
    with torch.no_grad():
        logits = net(images)
    assert accuracy == (logits.argmax(1) == labels).double().mean().item()
    assert math.isclose(loss, F.cross_entropy(logits, labels).item(), rel_tol=1e-6)


def test_the_best_epoch_is_chosen_on_validation_and_only_among_equally_sparse_nets() -> None:
    net, train = set_up()
    values = iter([0.9, 0.5, 0.7, 0.6, 0.4])  # of validation after each of five epochs
    splits: list[str] = []

    def evaluate(split: str) -> tuple[float, float]:
        splits.append(split)
        return (0.0, next(values)) if split == "val" else (0.0, train.best.val_accuracy)

    train.evaluate = evaluate  # type: ignore[method-assign]
    train(0, 8)
    assert (train.best.step, train.best.val_accuracy) == (8, 0.9)
    net.keep({"4.weight": torch.arange(9)})  # another network: what came before does not count
    train(8)
    assert (train.best.step, train.best.val_accuracy) == (24, 0.7)
    assert splits == ["val", "test", "val", "test", "val", "test", "val", "val"]


def test_a_loss_that_is_not_a_number_names_its_step() -> None:
    net, train = set_up(lr=0.5)
    message = (
        r"the loss became nan at step 13 of 40, at learning rate 0.5 \(losses before it: [\d., "
        r"e-]+\). "
        "Try a smaller recipe.lr"
    )
    with pytest.raises(UserError, match=message):
        for t in train.steps():
            if t == 12:
                with torch.no_grad():
                    net.model[6].bias.fill_(math.nan)


def test_a_net_of_which_nothing_trains_can_be_evaluated() -> None:
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    net.freeze(dict.fromkeys(net.parameters()))
    train = Train(net, Blobs(), RECIPE)
    train()
    assert 0 <= train.evaluate("test")[1] <= 1
