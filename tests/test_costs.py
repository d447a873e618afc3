"""FLOPs: those of dense networks against PyTorch's counter, those of sparse ones worked out by
hand."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import compose, result_of, steps_done, twin, until
from kinds import SHAPE, Attention, Functional, Recurrent
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from toy import set_up

from dimred.conformance.torch_flops import counted
from dimred.methods.bases import Interspace, PowerProp
from dimred.methods.subspaces.intrinsic_dimension import projections
from dimred.net import Net
from dimred.runs.nets import build_net
from dimred.training.exploration import Exploration
from dimred.training.flops import Costs, Executed


class Layers(nn.Module):
    """A strided, padded, grouped and a transposed convolution and a Linear, all of different
    sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(3, 8, 3, stride=2, padding=1)  # 9 x 9 -> 5 x 5
        self.grouped = nn.Conv2d(8, 4, (3, 1), groups=4, bias=False)  # -> 3 x 5
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)  # -> 6 x 10
        self.out = nn.Linear(120, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.up(self.grouped(self.strided(x)).relu()).flatten(1))


#: the weights of Layers and for how many positions each entry is used
USES = {"strided.weight": 5 * 5, "grouped.weight": 3 * 5, "up.weight": 3 * 5, "out.weight": 1}


@pytest.mark.parametrize(
    "name",
    ["lenet300", "lenet5", "conv4", "resnet20", "resnet18", "vgg11", "wrn22_2", "mobilenet", "vit"],
)
def test_a_dense_step_costs_what_pytorch_counts(name: str) -> None:
    shape = (1, 28, 28) if name.startswith("lenet") else (3, 32, 32)
    net = build_net(compose(f"model={name}"), shape, 10)
    forward, backward = counted(net, torch.randn(2, *shape))
    costs = Costs(net, shape)
    costs.step(2, dense_grad=False)
    assert (2 * costs.dense_forward, 2 * costs.dense_step) == (forward, forward + backward)
    assert (costs.steps, costs.inference()) == (forward + backward, costs.dense_forward)


def test_layers_of_every_kind_cost_what_pytorch_counts() -> None:
    net = Net(Layers())
    costs = Costs(net, (3, 9, 9))
    forward, backward = counted(net, torch.randn(1, 3, 9, 9))
    assert (
        costs.dense_forward
        == forward
        == sum(2 * uses * net.weights[n].size for n, uses in USES.items())
    )
    assert costs.dense_step == forward + backward


def test_a_model_of_any_layers_costs_what_pytorch_counts() -> None:
    """Attention with and without a packed projection, recurrence, matrices that a function uses."""
    for model in (Attention(), Attention(kdim=4, vdim=4), Recurrent(nn.GRU), Functional()):
        net = Net(model, shape=SHAPE)
        forward, backward = counted(net, torch.randn(2, *SHAPE))
        costs = Costs(net, SHAPE)
        costs.step(2, dense_grad=False)
        assert (2 * costs.dense_forward, costs.steps) == (forward, forward + backward)


def test_recurrent_layers_cost_two_products_a_step_and_gate() -> None:
    """Of 5 units that read 4 rows of 6; PyTorch's counter does not know the fused LSTM of CPUs."""
    for kind, gates in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)):
        costs = Costs(Net(Recurrent(kind), shape=SHAPE), SHAPE)
        assert costs.dense_forward == 2 * 4 * gates * (6 * 5 + 5 * 5) + 2 * 5 * 2
        assert costs.dense_step == 3 * costs.dense_forward - 2 * 4 * gates * 6 * 5 - (
            # images take no gradient, and neither do the zeros it starts with
            2 * gates * 5 * 5
        )


@torch.no_grad()
def test_scoring_with_an_lstm_costs_its_products_whatever_the_kernel() -> None:
    for bidirectional in (False, True):
        model, counter = Recurrent(nn.LSTM, bidirectional=bidirectional), Executed()
        with counter.set(True):
            model(torch.randn(3, *SHAPE))
        ways = 1 + bidirectional
        assert counter.total == 3 * ways * (2 * 4 * 4 * (6 * 5 + 5 * 5) + 2 * 5 * 2)


class Noisy(nn.Module):
    """Draws from all global generators, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1) + torch.rand(()) + random.random() + np.random.rand())


def test_counting_leaves_all_generators_as_they_are() -> None:
    def states() -> str:
        return repr((torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1:3]))

    model = Noisy()
    before = states()
    Costs(Net(model, shape=SHAPE), SHAPE).step(1, dense_grad=False)
    assert states() == before


class Cross(nn.Module):
    """One query that attends to four rows: its third of in_proj_weight multiplies one row, the rest
    four."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(24, 6, bias=False)
        self.attention = nn.MultiheadAttention(6, 1, batch_first=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x.flatten(1))[:, None]
        return self.attention(query, x[:, 0], x[:, 0], need_weights=False)[0][:, 0]


def test_the_parts_of_a_weight_cost_what_each_of_them_is_used_for() -> None:
    net = Net(Cross(), shape=SHAPE)
    products = 2 * 2 * 4 * 6  # q k^T and p v
    assert Costs(net, SHAPE).dense_forward == 2 * (24 * 6 + 36 + 4 * 72 + 36) + products
    for kept, cost in (
        (torch.arange(10), 2 * 10),
        (torch.arange(36, 46), 2 * 4 * 10),
        (torch.arange(30, 40), 2 * 6 + 2 * 4 * 4),
    ):
        net = Net(Cross(), shape=SHAPE)
        net.keep({"attention.in_proj_weight": kept})
        costs = Costs(net, SHAPE)
        costs.step(1, dense_grad=False)
        rest = 2 * (24 * 6 + 36) + products
        assert costs.inference() == rest + cost
        # gradients of: both products' operands, the output's weight and operand, the query's
        # weight, the part; and that of the query, which the first third makes of its own
        through = 2 * int((kept < 36).sum())
        assert costs.steps == rest + cost + 2 * products + 2 * 2 * 36 + 2 * 24 * 6 + cost + through


class LowRank(nn.Module):
    """The weight is a product of two parameters, once a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(5, 2)), nn.Parameter(torch.randn(2, 24))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.left @ self.right)


def test_products_of_weights_cost_once_a_batch() -> None:
    costs = Costs(Net(LowRank(), include=["left", "right"]), SHAPE)
    costs.step(3, dense_grad=False)
    making, using = 2 * 5 * 2 * 24, 2 * 5 * 24
    assert costs.dense_forward == making + using
    assert costs.steps == 3 * making + 3 * 2 * using == costs.dense(1, 3)


def test_pruned_weights_cost_nothing_and_frozen_ones_no_gradient() -> None:
    some = {
        "strided.weight": torch.arange(10),
        "grouped.weight": torch.arange(3),
        "out.weight": torch.arange(7),
    }
    up = 2 * USES["up.weight"] * 4 * 2 * 2 * 2
    kept = {name: 2 * USES[name] * len(support) for name, support in some.items()}
    for base in ("zero", "init"):
        net = Net(Layers())
        net.keep(some, base=base)  # type: ignore[arg-type]
        costs = Costs(net, (3, 9, 9))
        costs.step(5, dense_grad=False)
        full = {name: 2 * USES[name] * net.weights[name].size for name in some}
        forward = kept if base == "zero" else full
        gradients = sum(kept.values()) + up
        through = (
            forward["grouped.weight"] + forward["out.weight"] + up
        )  # nothing before the first one trains
        assert costs.steps == 5 * (sum(forward.values()) + up + through + gradients)
        assert costs.inference() == sum(forward.values()) + up


def test_dense_gradients_cost_the_weight_gradient_of_all() -> None:
    net = Net(Layers())
    net.keep({"out.weight": torch.arange(7)})
    one, other = Costs(net, (3, 9, 9)), Costs(net, (3, 9, 9))
    one.step(4, dense_grad=False)
    other.step(4, dense_grad=True)
    assert other.steps - one.steps == 4 * 2 * (600 - 7)


def test_no_gradients_are_counted_below_the_first_layer_that_trains() -> None:
    net = Net(Layers())
    costs = Costs(net, (3, 9, 9))
    dense = costs.dense_step
    net.freeze(dict.fromkeys(name for name in net.parameters() if not name.startswith("out")))
    costs.step(1, dense_grad=False)
    assert costs.steps == costs.dense_forward + 2 * 600
    assert costs.dense_step == dense


def test_a_basis_and_a_projection_cost_their_products_once_a_step() -> None:
    net = Net(Layers())
    Interspace(share="layer", init="standard", trainable=True).apply(net)
    costs = Costs(net, (3, 9, 9))
    costs.step(1, dense_grad=False)
    more = costs.steps
    costs.step(3, dense_grad=False)
    with FlopCounterMode(display=False) as made:
        net.effective_weights()
    assert costs.steps - 2 * more < 2 * more  # not once an example
    assert made.get_total_flops() < more - costs.dense_step <= 4 * made.get_total_flops()


def test_maps_that_multiply_entry_by_entry_cost_nothing_more() -> None:
    net = Net(Layers())
    PowerProp(alpha=2.0).apply(net)
    costs = Costs(net, (3, 9, 9))
    costs.step(2, dense_grad=False)
    assert costs.steps == 2 * costs.dense_step


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x[0, 0] @ x[0, 1],
        lambda x: x[0] @ x[1],
        lambda x: torch.addmm(x[0, 0], x[0, 1], x[0, 2]),
        lambda x: torch.baddbmm(x[0], x[1], x[2], beta=0.5),
        lambda x: F.conv1d(x[0], x[1][:, :, :3], padding=1),
        lambda x: F.conv2d(x, x[:, :2, :3, :1], groups=2, stride=2),
        lambda x: F.conv_transpose2d(x, x[:, :, :2, :3], stride=2),
    ],
)
def test_an_operation_costs_what_pytorch_counts(operation: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(4, 4, 4, 4)
    with FlopCounterMode(display=False) as counter:
        operation(x)
    executed = Executed()
    with executed.set(True):
        operation(x)
    assert executed.total == counter.get_total_flops() > 0


def test_counting_stops_within_and_goes_on_after() -> None:
    counter, a = Executed(), torch.ones(2, 3)
    with counter.set(True):
        a @ a.T
        with counter.set(False):
            a @ a.T
            with counter.set(True):
                a @ a.T
    a @ a.T
    assert counter.total == 2 * (2 * 2 * 2 * 3)


# -- whole runs --------------------
def test_scoring_lottery_rounds_and_dense_steps_all_count(train: Callable[..., Path]) -> None:
    dense, snip, imp, rigl, gmp = (
        result_of(train(f"method={name}", "recipe.steps=20", *more))
        for name, *more in (
            ["dense"],
            ["snip"],
            ["imp"],
            ["rigl", "method.update_every=5"],
            ["gmp", "method.update_every=2"],
        )
    )
    assert dense["training_flops_relative"] == dense["inference_flops_relative"] == 1
    assert dense["scoring_flops"] == 0
    sizes = [layer["total"] for layer in snip["layers"].values()]
    trained = [layer["trained"] for layer in snip["layers"].values()]
    step = 2 * (3 * sum(trained) - trained[0])
    assert snip["scoring_flops"] == 128 * 2 * (
        3 * sum(sizes) - sizes[0]
    )  # one batch, forward and backward
    assert snip["training_flops"] == snip["scoring_flops"] + 20 * 64 * step
    assert snip["inference_flops"] == 2 * sum(trained)
    assert imp["training_flops_relative"] > 3  # a dense training, and rounds that become cheaper
    assert rigl["training_flops"] > snip["training_flops"] - snip["scoring_flops"]
    assert snip["training_flops_relative"] < gmp["training_flops_relative"] < 1


def test_pruned_coefficients_make_filters_that_are_denser_and_cost_more(
    train: Callable[..., Path],
) -> None:
    one, two, ten = (
        result_of(train("model=conv2", "basis=layer", "sparsity=0.95", f"recipe.steps={steps}"))
        for steps in (1, 2, 10)
    )
    first, second = (run["training_flops"] - run["scoring_flops"] for run in (one, two))
    assert (
        second - first > 1.1 * first
    )  # the first step has the standard basis, whose filters are as sparse
    rest = (ten["training_flops"] - ten["scoring_flops"] - first) / 9
    assert rest == pytest.approx(second - first, rel=0.02)


def test_a_resumed_run_has_cost_as_much(
    train: Callable[..., Path], start: Callable, tmp_path: Path
) -> None:
    """And has explored as much: what is counted survives a crash at any step."""
    command = ("method=rigl", "method.update_every=3", "recipe.steps=120", "checkpoint_seconds=0")
    whole = train(*command)
    broken = tmp_path / "broken"
    process = start("train", *command, f"outputs={broken}")
    until(lambda: steps_done(twin(whole, broken)) > 20)
    process.process.kill()
    process.process.join()
    again = result_of(train(*command, outputs=broken))
    for key in ("training_flops", "scoring_flops", "explored"):
        assert again[key] == result_of(whole)[key]
    assert (twin(whole, broken) / "metrics.jsonl").read_bytes() == (
        whole / "metrics.jsonl"
    ).read_bytes()


# -- where the support has been --------------------
def test_exploration_is_the_union_of_all_supports_and_overlap_that_with_the_first() -> None:
    net = Net(nn.Linear(4, 2, bias=False))
    path = Exploration(net)
    net.keep({"weight": torch.tensor([0, 1, 2])})
    path.look()
    assert (path.overlap(), path.explored()) == (1.0, 3 / 8)
    net.keep({"weight": torch.tensor([1, 2, 5])})
    path.look()
    net.keep({"weight": torch.tensor([0, 1, 7])})
    path.look()
    assert (path.overlap(), path.explored()) == (2 / 4, 5 / 8)
    again = Exploration(net)
    again.load(path.state())
    assert (again.overlap(), again.explored()) == (2 / 4, 5 / 8)


def test_a_support_that_never_changes_is_not_copied() -> None:
    net, train = set_up()
    net.keep({name: torch.arange(3) for name in net.weights})
    train()
    assert not train.exploration.seen and train.exploration.first == net.supports


def test_fastfood_costs_its_sums_however_it_is_computed() -> None:
    """4 n log2 n for each weight: two transforms of n = 32 and 8, and their gradients."""
    net = Net(nn.Sequential(nn.Flatten(), nn.Linear(5, 4, bias=False), nn.Linear(4, 2, bias=False)))
    z = nn.Parameter(torch.zeros(3))
    net.freeze(dict.fromkeys(net.weights))
    net.add_transforms(projections(net, z, "fastfood"))
    assert Costs(net, (1, 1, 5)).of_a_pass().making == 4 * (32 * 5 + 8 * 3)
