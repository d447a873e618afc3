"""theta = base; theta[support] = psi, and the verbs that change them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dimred.errors import UserError
from dimred.net import Net


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


def batch(seed: int = 1, n: int = 5) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 6, 6, generator=draws), torch.randint(3, (n,), generator=draws)


def some(net: Net, seed: int = 2, fraction: float = 0.3) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {
        name: torch.randperm(w.size, generator=draws)[: int(fraction * w.size)].sort().values
        for name, w in net.weights.items()
    }


def optimizer_of(net: Net, kind: str) -> torch.optim.Optimizer:
    parameters = net.parameters().values()
    net.optimizer = {
        "sgd": lambda: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.01),
        "nesterov": lambda: torch.optim.SGD(parameters, 0.1, momentum=0.9, nesterov=True),
        "adam": lambda: torch.optim.Adam(parameters, 0.01),
        "adamw": lambda: torch.optim.AdamW(parameters, 0.01),
        "fused": lambda: torch.optim.AdamW(parameters, 0.01, fused=True),
    }[kind]()
    return net.optimizer


def descend(net: Net, optimizer: torch.optim.Optimizer, steps: int = 1, seed: int = 1) -> None:
    for i in range(steps):
        images, labels = batch(seed + i)
        net.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()


OPTIMIZERS = ("sgd", "nesterov", "adam", "adamw", "fused")


# -- theta ---------------------------------------------------------------------------------------
def test_a_fully_trained_net_computes_what_the_plain_model_computes() -> None:
    images, _ = batch()
    assert torch.equal(Net(small())(images), small()(images))


def test_the_model_stays_a_plain_module_with_its_own_names() -> None:
    net = Net(small())
    net.keep(some(net))
    assert type(net.model) is nn.Sequential and type(net.model[0]) is nn.Conv2d
    assert list(net.state_dict()) == list(small().state_dict())
    plain = small(seed=9)
    plain.load_state_dict(net.state_dict())
    images, _ = batch()
    assert torch.equal(plain(images), net(images))


def test_psi_is_exactly_d_numbers_and_its_gradient_is_the_dense_one_at_the_support() -> None:
    net, plain, (images, labels) = Net(small()), small(), batch()
    net.keep(some(net), base="init")  # theta_0 everywhere, so that both compute the same
    F.cross_entropy(net(images), labels).backward()
    F.cross_entropy(plain(images), labels).backward()
    for name, parameter in plain.named_parameters():
        if name in net.weights:
            w = net.weights[name]
            assert w.psi.shape == (int(0.3 * w.size),) == w.psi.grad.shape
            assert torch.equal(w.psi.grad, parameter.grad.view(-1)[w.support])


@pytest.mark.parametrize("kind", ["sgd", "nesterov", "adam"])
@pytest.mark.parametrize("base", ["zero", "init"])
def test_twenty_steps_equal_masked_training_to_the_bit(kind: str, base: str) -> None:
    net = Net(small())
    net.keep(some(net), base=base)
    off = {name: ~w.trained().view(w.param.shape) for name, w in net.weights.items()}
    plain = small()
    plain.load_state_dict(net.state_dict())
    start = {name: p.detach().clone() for name, p in plain.named_parameters()}
    masked = {
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.01),
        "nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, 0.01),
    }[kind](plain.parameters())
    optimizer = optimizer_of(net, kind)
    for step in range(20):
        descend(net, optimizer, seed=step)
        images, labels = batch(step)
        masked.zero_grad()
        F.cross_entropy(plain(images), labels).backward()
        for name, parameter in plain.named_parameters():
            if name in off:
                parameter.grad[off[name]] = 0
        masked.step()
        with (
            torch.no_grad()
        ):  # the loop of the masked code bases: put back what decay and momentum have moved
            for name, parameter in plain.named_parameters():
                if name in off:
                    parameter[off[name]] = start[name][off[name]]
    for (name, ours), theirs in zip(
        net.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_is_not_trained_keeps_its_bits(kind: str) -> None:
    for base in ("zero", "init"):
        net = Net(small())
        net.keep(some(net), base=base)
        before = {name: theta.clone() for name, theta in net.dense_weights().items()}
        descend(net, optimizer_of(net, kind), 5)
        for name, theta in net.dense_weights().items():
            trained = net.weights[name].trained().view(theta.shape)
            assert torch.equal(theta[~trained], before[name][~trained])
            assert not torch.equal(theta[trained], before[name][trained])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_optimiser_holds_d_numbers(kind: str) -> None:
    net = Net(small())
    net.keep(some(net))
    optimizer = optimizer_of(net, kind)
    descend(net, optimizer)
    for w in net.weights.values():
        assert sum(p is w.psi for group in optimizer.param_groups for p in group["params"]) == 1
        assert {v.numel() for k, v in optimizer.state[w.psi].items() if k != "step"} == {w.dim}


def test_nothing_trained_means_nothing_computed() -> None:
    net = Net(small())
    net.keep({"0.weight": torch.empty(0, dtype=torch.int64)}, base="init")
    net.freeze({"0.bias": None, "1.weight": None, "1.bias": None, "4.weight": None})
    with net.weights_in_place() as model:
        hidden = model[:4](batch()[0])
    assert not hidden.requires_grad  # no backward pass below the first trained layer


def test_two_forwards_before_one_backward() -> None:
    net, (images, labels) = Net(small()), batch()
    net.keep(some(net))
    (F.cross_entropy(net(images), labels) + F.cross_entropy(net(images), labels)).backward()
    twice = net.weights["0.weight"].psi.grad.clone()
    net.zero_grad()
    for _ in range(2):
        F.cross_entropy(net(images), labels).backward()  # accumulated
    assert torch.allclose(twice, net.weights["0.weight"].psi.grad, rtol=1e-5)


def test_a_graph_from_before_a_change_of_psi_is_refused() -> None:
    net, (images, labels) = Net(small()), batch()
    net.keep(some(net))
    loss = F.cross_entropy(net(images), labels)
    with torch.no_grad():
        net.weights["6.weight"].psi.add_(1)
    net(images)  # writes the new theta over the one that the graph has saved
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_writes_without_a_version_change_reach_theta() -> None:
    net = Net(small())
    net.keep(some(net))
    images, _ = batch()
    before = net(images)
    for w in net.weights.values():
        w.psi.data.mul_(2)  # does not count as a change of psi
    assert not torch.equal(net(images), before)


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    net, (images, labels) = Net(small()), batch()
    net.keep(some(net))

    def gradients(recompute: bool) -> list[Tensor]:
        net.zero_grad()
        with net.weights_in_place() as model:
            model.eval()
            logits = checkpoint(model, images, use_reentrant=False) if recompute else model(images)
            F.cross_entropy(logits, labels).backward()
        return [w.psi.grad.clone() for w in net.weights.values()]

    assert all(map(torch.equal, gradients(True), gradients(False)))


def test_gradients_can_be_differentiated_again() -> None:
    net = Net(small().double())
    net.keep(some(net))
    (images, labels), psi = batch(), net.weights["4.weight"].psi

    def norm() -> Tensor:
        (grad,) = torch.autograd.grad(
            F.cross_entropy(net(images.double()), labels), psi, create_graph=True
        )
        return grad.square().sum()

    (second,) = torch.autograd.grad(norm(), psi)
    i, step, around = int(second.abs().argmax()), 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            psi[i] += sign * step
        around.append(float(norm().detach()))
        with torch.no_grad():
            psi[i] -= sign * step
    assert torch.allclose(
        second[i], torch.tensor((around[0] - around[1]) / (2 * step)).double(), rtol=1e-4
    )


def test_a_copy_is_independent() -> None:
    net = Net(small())
    net.keep({"0.weight": some(net)["0.weight"]})  # one part trained in part, two as a whole
    images, _ = batch()
    twin = copy.deepcopy(net)
    assert torch.equal(twin(images), net(images))
    descend(twin, optimizer_of(twin, "sgd"), 3)
    assert not torch.equal(twin(images), net(images))
    for w in twin.weights.values():  # psi and buffer still say the same
        assert torch.equal(w.gather(w.dense()), w.psi)


def test_conversion_moves_psi_and_buffer_together() -> None:
    net = Net(small())
    net.keep(some(net), base="init")
    images, _ = batch()
    single = net(images)
    double = net.to(dtype=torch.float64)(images.double())
    assert double.dtype == torch.float64 and torch.allclose(double.float(), single, atol=1e-5)
    assert all(w.psi.dtype == torch.float64 for w in net.weights.values())


def test_tied_weights_have_one_psi() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    net = Net(Tied())
    assert list(net.weights) == ["a.weight"] and net.total == 36
    net.keep({"a.weight": torch.tensor([0, 7, 20])})
    net(torch.ones(2, 6)).sum().backward()
    assert net.weights["a.weight"].psi.grad.shape == (3,)
    state = net.state_dict()
    assert (
        torch.equal(state["a.weight"], state["b.weight"])
        and int(state["a.weight"].count_nonzero()) == 3
    )
    again = Net(Tied())
    again.load(net.state())
    assert torch.equal(again(torch.ones(2, 6)), net(torch.ones(2, 6)))


def test_bfloat16_autocast_trains_psi_in_single_precision() -> None:
    net, (images, labels) = Net(small()), batch()
    net.keep(some(net))
    with torch.autocast("cpu", torch.bfloat16):
        F.cross_entropy(net(images), labels).backward()
    assert all(w.psi.grad.dtype == torch.float32 for w in net.weights.values())


# -- the verbs -----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_weights_that_stay_keep_value_and_momentum_and_new_ones_have_none(kind: str) -> None:
    net = Net(small())
    net.keep(some(net))
    optimizer = optimizer_of(net, kind)
    descend(net, optimizer, 3)
    old = {
        name: (w.support, w.dense().clone(), dict(optimizer.state[w.psi]))
        for name, w in net.weights.items()
    }
    net.keep(some(net, seed=5, fraction=0.4))
    for name, w in net.weights.items():
        support, theta, memory = old[name]
        stays, joins = torch.isin(w.support, support), ~torch.isin(w.support, support)
        assert stays.any() and joins.any()
        assert torch.equal(w.psi[stays], theta[w.support[stays]]) and not w.psi[joins].any()
        assert set(optimizer.state[w.psi]) == set(memory)
        for key, value in optimizer.state[w.psi].items():
            if key == "step":
                assert torch.equal(value, memory[key])
            else:
                then = torch.zeros(w.size).index_copy_(0, support, memory[key])
                assert torch.equal(value, then[w.support]) and not value[joins].any()
    descend(net, optimizer)  # the optimiser trains the new psi
    assert any(w.psi[~torch.isin(w.support, old[n][0])].any() for n, w in net.weights.items())


def test_dropping_and_taking_back_starts_from_the_base() -> None:
    for base in ("zero", "init"):
        net = Net(small())
        first = net.weights["4.weight"].dense().clone()
        net.keep({"4.weight": torch.arange(100)}, base=base)
        descend(net, optimizer_of(net, "sgd"), 3)
        net.keep({"4.weight": torch.arange(50)}, base=base)
        net.keep({"4.weight": torch.arange(100)}, base=base)
        back = net.weights["4.weight"].psi[50:]
        assert torch.equal(back, first[50:100] if base == "init" else torch.zeros(50))


def test_keep_can_give_everything_back() -> None:
    net = Net(small())
    optimizer = optimizer_of(net, "sgd")
    net.keep(some(net))
    descend(net, optimizer)
    net.keep(dict.fromkeys(net.weights))
    assert net.dim == net.total and all(w.support is None for w in net.weights.values())
    descend(net, optimizer)
    assert torch.equal(net.weights["0.weight"].psi, net.model[0].weight.view(-1))  # one memory


def test_weights_that_keep_retains_at_the_pause_take_the_step() -> None:
    net, (images, labels) = Net(small()), batch()
    optimizer = optimizer_of(net, "sgd")
    F.cross_entropy(net(images), labels).backward()
    grad = net.weights["4.weight"].psi.grad.clone()
    net.keep({"4.weight": torch.arange(10)})
    assert torch.equal(net.weights["4.weight"].psi.grad, grad[:10])
    before = net.weights["4.weight"].psi.detach().clone()
    optimizer.step()
    assert torch.allclose(
        net.weights["4.weight"].psi, before - 0.1 * (grad[:10] + 0.01 * before), atol=1e-7
    )


def test_freezing_does_not_change_theta() -> None:
    net = Net(small())
    optimizer = optimizer_of(net, "adam")
    descend(net, optimizer, 3)
    net.has_trained = True
    before = {name: theta.clone() for name, theta in net.dense_weights().items()}
    net.freeze({"0.weight": None, "4.weight": torch.arange(200), "4.bias": None})
    assert {n: w.dim for n, w in net.weights.items()} == {
        "0.weight": 0,
        "4.weight": 312,
        "6.weight": 24,
    }
    assert all(torch.equal(theta, before[name]) for name, theta in net.dense_weights().items())
    bias = net.uncovered["4.bias"].detach().clone()
    descend(net, optimizer, 3)
    after = net.dense_weights()
    assert torch.equal(after["0.weight"], before["0.weight"]) and torch.equal(
        net.uncovered["4.bias"], bias
    )
    assert torch.equal(after["4.weight"].view(-1)[:200], before["4.weight"].view(-1)[:200])
    assert not torch.equal(after["4.weight"].view(-1)[200:], before["4.weight"].view(-1)[200:])


@pytest.mark.parametrize("kind", ["sgd", "adam", "fused"])
@pytest.mark.parametrize("change", ["keep zero", "keep init", "freeze", "nothing"])
def test_state_saved_and_loaded_trains_on_to_the_same_bits(kind: str, change: str) -> None:
    def changed() -> tuple[Net, torch.optim.Optimizer]:
        net = Net(small())
        optimizer = optimizer_of(net, kind)
        descend(net, optimizer, 2)
        net.has_trained = True
        if change.startswith("keep"):
            net.keep(some(net), base=change.split()[1])  # type: ignore[arg-type]
        elif change == "freeze":
            net.freeze({"4.weight": torch.arange(100, 300), "0.weight": None, "6.bias": None})
        descend(net, optimizer, 2)
        return net, optimizer

    net, optimizer = changed()
    state = net.state()
    again = Net(small())
    other = optimizer_of(again, kind)
    again.load(state)
    for one, its_optimizer in ((net, optimizer), (again, other)):
        descend(one, its_optimizer, 3, seed=7)
    assert net.state().keys() == again.state().keys()
    assert all(torch.equal(value, again.state()[key]) for key, value in net.state().items())


def test_state_says_positions_only_where_needed_and_theta_only_when_held() -> None:
    net = Net(small())
    net.keep({"4.weight": torch.arange(7)})
    net.keep({"6.weight": torch.arange(3)}, base="init")
    net.has_trained = True
    net.freeze({"0.weight": torch.arange(2)})
    state = net.state()
    assert {k for k in state if k.split("/")[0] in ("psi", "zero", "init", "held", "theta")} == {
        "psi/0.weight",
        "psi/4.weight",
        "psi/6.weight",
        "held/0.weight",
        "theta/0.weight",
        "zero/4.weight",
        "init/6.weight",
    }
    assert state["zero/4.weight"].dtype == torch.int32 and state["psi/4.weight"].numel() == 7


def test_restore_rewinds_values_norms_and_momentum_but_not_the_support() -> None:
    net = Net(small())
    optimizer = optimizer_of(net, "sgd")
    descend(net, optimizer, 2)
    snapshot = net.state()
    then = {name: theta.clone() for name, theta in net.dense_weights().items()}
    momentum = {
        name: optimizer.state[w.psi]["momentum_buffer"].clone() for name, w in net.weights.items()
    }
    descend(net, optimizer, 3)
    net.keep(some(net))
    net.restore(snapshot)
    for name, w in net.weights.items():
        assert torch.equal(w.support, some(net)[name])
        assert torch.equal(w.psi, then[name].view(-1)[w.support])
        assert int(w.dense().count_nonzero()) <= w.dim
        assert torch.equal(optimizer.state[w.psi]["momentum_buffer"], momentum[name][w.support])
    assert torch.equal(net.model[1].running_mean, snapshot["uncovered/1.running_mean"])


def test_dense_gradients_are_there_when_asked_for_and_only_then() -> None:
    net, plain, (images, labels) = Net(small()), small(), batch()
    net.keep(some(net), base="init")
    with pytest.raises(UserError, match="dense_grad"):
        net.grads()
    net.retain_grad(True)
    F.cross_entropy(net(images), labels).backward()
    F.cross_entropy(plain(images), labels).backward()
    for name, grad in net.grads().items():
        assert torch.equal(grad, plain.get_parameter(name).grad)
    net.retain_grad(False)
    with pytest.raises(UserError, match="dense_grad"):
        net.grads()


def test_a_layer_without_trained_weights_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    net = Net(small())
    with caplog.at_level("WARNING", logger="dimred"):
        net.keep({"4.weight": torch.empty(0, dtype=torch.int64)})
    assert (
        net.collapsed == {"4.weight"}
        and "layer collapse" in caplog.text
        and "4.weight" in caplog.text
    )
    net.keep({"4.weight": torch.arange(3)})
    assert not net.collapsed


# -- coverage ------------------------------------------------------------------------------------
def test_conv_and_linear_weights_are_covered_unless_told_otherwise() -> None:
    assert list(Net(small()).weights) == ["0.weight", "4.weight", "6.weight"]
    assert list(Net(small(), exclude=["^6"]).weights) == ["0.weight", "4.weight"]
    assert list(Net(small(), include=[r"^4\.", "1.weight"]).weights) == [
        "1.weight",
        "4.weight",
        "4.bias",
    ]


@pytest.mark.parametrize("key", ["include", "exclude"])
def test_patterns_that_match_nothing_or_are_broken_are_errors(key: str) -> None:
    with pytest.raises(
        UserError, match=rf"{key}: '4.wieght' matches no parameter. Did you mean '4.weight'"
    ):
        Net(small(), **{key: ["4.wieght"]})
    with pytest.raises(UserError, match=rf"{key}: '\(' is not a regular expression"):
        Net(small(), **{key: ["("]})
    with pytest.raises(UserError, match="no weight is covered"):
        Net(small(), exclude=["weight"])


def test_the_net_compiles_and_supports_still_change_freely() -> None:
    net, (images, labels) = Net(small()), batch()
    eager = copy.deepcopy(net)
    net.compile()
    for one in (net, eager):
        for fraction in (0.3, 0.5):
            one.keep(some(one, fraction=fraction))
            one.zero_grad()
            F.cross_entropy(one(images), labels).backward()
    for name, w in net.weights.items():
        assert torch.allclose(w.psi.grad, eager.weights[name].psi.grad, rtol=1e-4, atol=1e-6)
