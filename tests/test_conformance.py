"""Every method passes the conformance suite, and every check finds a method that violates it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Outcome, compose, compose_method
from torch import Tensor, nn

from dimred.conformance import CHECKS, EXCEPTIONS, NOT_EXAMINED, Make, NotApplicable, examine
from dimred.conformance.expectations import captured_warnings
from dimred.errors import UserError
from dimred.net import Net
from dimred.net.transforms import Transform
from dimred.scores import magnitude, random_scores
from dimred.select.allocations import Allocation
from dimred.select.topk import topk
from dimred.training.loop import Train

METHODS = sorted(
    {path.stem for path in (ROOT / "conf/method").glob("*.yaml")} - NOT_EXAMINED.keys()
)
#: one method of a kind in every basis; two trainings or growth from zero go with some
BASES = [
    f"{method} basis={path.stem}"
    for path in sorted((ROOT / "conf/basis").glob("*.yaml"))
    for method in ("freezenet", "gmp")
    if path.stem != "none"
]


@pytest.fixture(scope="module")
def make(request: pytest.FixtureRequest) -> Make:
    method, *basis = request.param.split()
    return Make(method, compose_method(method, *basis))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("make", [*METHODS, *BASES], indirect=True)
def test_a_method_keeps_its_promises(make: Make, check: str) -> None:
    """Those that rightly do otherwise must do so: an exception that is not needed is to be taken
    off the list."""
    exception = EXCEPTIONS.get(check, {}).get(make.name)
    with captured_warnings():
        try:
            CHECKS[check](make)
        except NotApplicable:
            assert not exception, f"{check} does not apply to {make.name}; it needs no exception"
            return
        except AssertionError:  # anything else is no exception to a promise but a failure
            if exception:
                return
            raise
    assert not exception, f"{make.name} needs no exception from {check} ({exception})"


def test_exceptions_are_of_methods_and_checks_that_there_are() -> None:
    assert EXCEPTIONS.keys() <= CHECKS.keys()
    for check, methods in EXCEPTIONS.items():
        assert set(methods) <= set(METHODS), check
        assert all(len(why) > 20 for why in methods.values())


# -- methods that break a promise --------------------
@dataclass(frozen=True)
class Prune:
    """Keeps its promises."""

    sparsity: float
    allocation: Allocation

    def run(self, net: Net, train: Train) -> None:
        self.choose(net)
        for t in train.steps():
            self.pause(net, train, t)
        self.finish(net)

    def choose(self, net: Net) -> None:
        net.keep(topk(magnitude(net), self.allocation(net, 1 - self.sparsity)))

    def pause(self, net: Net, train: Train, t: int) -> None:
        pass

    def finish(self, net: Net) -> None:
        pass


class Bernoulli(Prune):
    """About as many weights as asked for."""

    def choose(self, net: Net) -> None:
        net.keep(
            {
                name: (score.view(-1) < 0.3).nonzero().view(-1)
                for name, score in random_scores(net).items()
            }
        )


class Clamped(Prune):
    """Clamps the density of each layer and does not share out what is missing."""

    def choose(self, net: Net) -> None:
        counts = {
            name: min(w.size, round((1 - self.sparsity) * net.total / len(net.weights)))
            for name, w in net.weights.items()
        }
        net.keep(topk(magnitude(net), counts))


class Whole(Prune):
    """Keeps everything."""

    def choose(self, net: Net) -> None:
        pass


class Late(Prune):
    """Prunes in its fourth step."""

    def choose(self, net: Net) -> None:
        pass

    def pause(self, net: Net, train: Train, t: int) -> None:
        if t == 3:
            super().choose(net)


class Matrices(Prune):
    """Takes every covered weight for a matrix."""

    def choose(self, net: Net) -> None:
        super().choose(net)
        for theta in net.dense_weights().values():
            theta.sum(dim=1)


class Nonzero(Prune):
    """Counts as kept what is not zero, which untrained biases are."""

    def finish(self, net: Net) -> None:
        with torch.no_grad():
            for name, w in net.weights.items():
                w.psi.mul_(1.0 if name.endswith("weight") else 0.0)
        net.keep(
            {name: theta.view(-1).nonzero().view(-1) for name, theta in net.dense_weights().items()}
        )


class Leaky(Prune):
    """Lets pruned weights move."""

    def pause(self, net: Net, train: Train, t: int) -> None:
        with torch.no_grad():
            for w in net.weights.values():
                w.param.add_(1e-3)


class Unfrozen(Prune):
    """Moves a bias that it has frozen."""

    def choose(self, net: Net) -> None:
        super().choose(net)
        net.freeze({next(iter(net.uncovered)): None})

    def pause(self, net: Net, train: Train, t: int) -> None:
        next(iter(net.uncovered.values())).data.add_(1e-3)


class Forgetful(Prune):
    """Forgets the momentum of weights that stay."""

    def pause(self, net: Net, train: Train, t: int) -> None:
        train.optimizer.state.clear()


class Unknown(Prune):
    """Changes coordinates behind the optimiser's back."""

    def choose(self, net: Net) -> None:
        for w in net.weights.values():
            w.set(w.dense(), torch.arange(w.size // 2), "zero")


class Idle(Prune):
    """Prunes and does not train."""

    def run(self, net: Net, train: Train) -> None:
        self.choose(net)


class Noisy(Prune):
    """Draws from the global random state at a pause."""

    def pause(self, net: Net, train: Train, t: int) -> None:
        torch.rand(1)


class Statistical(Prune):
    """Scores with the model in training mode and leaves its statistics moved."""

    def choose(self, net: Net) -> None:
        with torch.random.fork_rng():
            net(torch.ones(4, 1, 4, 4))
        super().choose(net)


class Fickle(Prune):
    """Depends on a random state that no seed sets."""

    def choose(self, net: Net) -> None:
        with torch.no_grad():
            next(iter(net.weights.values())).psi.add_(random.SystemRandom().random())
        super().choose(net)


class Deaf(Prune):
    """Does the same whatever the seed."""

    def choose(self, net: Net) -> None:
        net.keep({name: torch.arange(w.size)[:0] for name, w in net.weights.items()})
        net.freeze(dict.fromkeys(net.uncovered))
        with torch.no_grad():
            for value in net.model.state_dict().values():
                value.zero_()

    def finish(self, net: Net) -> None:
        for value in net.model.state_dict().values():
            value.zero_()


class Remembering(Prune):
    """Keeps a running mean in a local variable, which a resumed run does not have."""

    def run(self, net: Net, train: Train) -> None:
        mean = {name: torch.zeros_like(theta) for name, theta in net.dense_weights().items()}
        for t in train.steps():
            for name, theta in net.dense_weights().items():
                mean[name] += theta.abs()
            if t == 15:
                net.keep(topk(mean, self.allocation(net, 1 - self.sparsity)))


class Clip(Transform):
    def forward(self, theta: Tensor) -> Tensor:
        return theta.clamp(-0.01, 0.01)


class Unmerged(Prune):
    """Leaves a transform behind."""

    def choose(self, net: Net) -> None:
        super().choose(net)
        net.add_transforms({name: Clip() for name in net.weights})


class Greedy(Prune):
    """Prunes a fifth, though nothing is to be pruned."""

    def choose(self, net: Net) -> None:
        net.keep(topk(magnitude(net), round(0.8 * (1 - self.sparsity) * net.total)))


class Regularised(Prune):
    """Trains all weights with sparsity 0, but not as dense training does."""

    def pause(self, net: Net, train: Train, t: int) -> None:
        if t == 7:
            net.zero_grad()


class Brittle(Prune):
    """Cannot do without weights in every layer."""

    def finish(self, net: Net) -> None:
        max(max(w.psi) for w in net.weights.values())


class Silent(Prune):
    """Says nothing when nothing is left."""

    def choose(self, net: Net) -> None:
        with captured_warnings():
            super().choose(net)


class Convolutional(Prune):
    """Fails where there is no convolution, without a word."""

    def choose(self, net: Net) -> None:
        super().choose(net)
        assert next(m for m in net.model.modules() if isinstance(m, nn.Conv2d))


class Demanding(Prune):
    """Wants a convolution, and does not say of which model."""

    def choose(self, net: Net) -> None:
        super().choose(net)
        if not any(isinstance(m, nn.Conv2d) for m in net.model.modules()):
            raise UserError("there is no convolution")


class Thawing(Prune):
    """Trains what the model has frozen."""

    def choose(self, net: Net) -> None:
        super().choose(net)
        for parameter in net.uncovered.values():
            parameter.requires_grad_(True)


class Single(Prune):
    """Knows float32 alone."""

    def choose(self, net: Net) -> None:
        super().choose(net)
        for w in net.weights.values():
            w.psi.data.index_copy_(0, torch.arange(w.dim), torch.ones(w.dim))


class Untranslated(Prune):
    """Hooks into the model so that only Python sees it."""

    def choose(self, net: Net) -> None:
        super().choose(net)
        if net.forward.compiled:
            net.uncovered["0.bias"].data.add_(1)


class Scaled(Transform):
    """theta times a Python number, which a graph would freeze."""

    factor = 1.0

    def forward(self, theta: Tensor) -> Tensor:
        return theta * self.factor


class Annealed(Prune):
    """Changes a Python number now and then."""

    def run(self, net: Net, train: Train) -> None:
        self.choose(net)
        scaled = Scaled()
        net.add_transforms({"0.weight": scaled})
        for t in train.steps():
            scaled.factor = 1.0 if t < 10 else 0.5
        net.merge_transforms()


class Counting(Annealed):
    """Changes a Python number in every step."""

    def run(self, net: Net, train: Train) -> None:
        self.choose(net)
        scaled = Scaled()
        net.add_transforms({"0.weight": scaled})
        for t in train.steps():
            scaled.factor = 1 + t / 100
        net.merge_transforms()


class Scattering(Prune):
    """Adds up the magnitudes of rows by index_add_."""

    def choose(self, net: Net) -> None:
        super().choose(net)
        for theta in net.dense_weights().values():
            rows = torch.arange(theta.numel()) // theta[0].numel()
            torch.zeros(len(theta)).index_add_(0, rows, theta.abs().flatten())


class Peeking(Prune):
    """Reads a buffer that dense weights are written to."""

    def run(self, net: Net, train: Train) -> None:
        super().run(net, train)
        net.uncovered["0.bias"].data.add_(net.weights["0.weight"].param.mean())


BROKEN: list[tuple[type[Prune], str, str]] = [
    (Idle, "training", "takes 0 steps of 20"),
    (Bernoulli, "exact_count", "depends on the seed"),
    (Clamped, "exact_count", "sparsity 0.6 must leave 293 of 732"),
    (Whole, "budget", "732 weights are kept, of a"),
    (Late, "exact_count", r"0.6 \(recipe.steps=1\) must leave 293 of 732 weights, not 732"),
    (Late, "budget", r"732 weights are kept, of a budget of 293 \(recipe.steps=1\)"),
    (Matrices, "covers", "Dimension out of range"),
    (Nonzero, "exact_count", r"\(all parameters are covered\) must leave 313 of 782 weights"),
    (Leaky, "frozen_weights", "is not trained and changed"),
    (Unfrozen, "frozen_weights", "0.bias is not trained"),
    (Forgetful, "optimizer_state", "state of 0.weight/momentum_buffer changed before step 1"),
    (Unknown, "optimizer_state", "does not train 0.weight"),
    (Noisy, "scoring", "global random state changed at"),
    (Statistical, "scoring", "running_mean changed before the first step"),
    (Fickle, "determinism", "the same seed differs in"),
    (Deaf, "determinism", "another seed gives the same bits"),
    (Remembering, "resume", "it ends with another"),
    (Unmerged, "saving", r"call net.keep\(\.\.\., merge=True\)"),
    (Greedy, "sparsity_zero", "must leave 732 of 732 weights, not 586"),
    (Regularised, "sparsity_zero", "is not what dense training"),
    (Brittle, "extreme_sparsity", "max"),
    (Silent, "extreme_sparsity", "no warning said so"),
    (Convolutional, "models", "StopIteration|^$"),
    (Demanding, "models", "does not say what to do: there is no convolution"),
    (
        Thawing,
        "models",
        r"0.weight, which the partly_frozen net has frozen \(requires_grad=False\), has changed",
    ),
    (Single, "number_formats", "dtype"),
    (Untranslated, "compile", "it ends with another"),
    (Annealed, "capture", "with captured steps, it ends with another psi/"),
    (Counting, "capture", "no step can be captured in a CUDA graph: aten.mul.Tensor has"),
    (Scattering, "sums", "in the conv_norm net it computes aten.index_add_, which a GPU"),
    (Leaky, "arithmetic", "with sparse products in the conv_norm net, it ends with another"),
    (Peeking, "theta", "with recipe.theta=rewritten, it ends with another uncovered/0.bias"),
    (Remembering, "arithmetic", r"resumed after crashes \(sparse products\)"),
]


def own(kind: type) -> Make:
    cfg = compose(
        "~method",
        "+method._target_=x",
        "+method.sparsity=${sparsity}",
        "+method.allocation=${allocation}",
    )
    cfg.method._target_ = f"{__name__}.{kind.__name__}"
    return Make(kind.__name__, cfg)


def test_a_method_that_keeps_its_promises_passes_all_checks() -> None:
    for finding in examine(own(Prune)):
        assert finding.outcome == "passes", finding


@pytest.mark.parametrize("kind, check, why", BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_a_check_finds_the_method_that_breaks_its_promise(
    kind: type[Prune], check: str, why: str
) -> None:
    with captured_warnings(), pytest.raises(Exception, match=why):
        CHECKS[check](own(kind))


def test_every_check_has_a_method_that_breaks_it() -> None:
    assert {check for _, check, _ in BROKEN} == CHECKS.keys()


# -- the command --------------------
@pytest.fixture
def check(
    in_this_process: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """`dimred check`, in a process that has compiled before."""
    return lambda *arguments: Outcome(in_this_process("check", *arguments), *capsys.readouterr())


def test_check_tells_what_holds(check: Callable[..., Outcome]) -> None:
    code, out, err = check("edge_popup")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert (
        code == 0
        and rows.keys() >= CHECKS.keys()
        and f"edge_popup: {len(CHECKS)} checks, 0 failed" in out
    ), out + err
    assert "passes" in rows["resume"] and "exception  it trains scores" in rows["sparsity_zero"]
    code, out, _ = check("dense", "basis=layer")
    assert code == 0 and "not applicable  it has no sparsity" in out


def test_check_accepts_a_class_of_the_user(check: Callable[..., Outcome]) -> None:
    code, out, err = check(f"{__name__}.Greedy")
    assert code == 1 and f"{len(CHECKS)} checks, 2 failed" in out and "Traceback" not in err
    assert "fails    sparsity 0.6 must leave 293 of 732 weights, not 234" in out


def test_check_takes_a_folder_of_configurations(
    check: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text(f"_target_: {__name__}.Waiting\nsteps: 100\n")
    code, out, _ = check("mine", "--config-dir", str(tmp_path))
    # as a whole number, steps is 5
    assert code == 0 and f"mine: {len(CHECKS)} checks, 0 failed" in out
    code, out, _ = check("mine", "steps=100", f"--config-dir={tmp_path}")
    assert (
        code == 1
        and "trains none of the toy nets" in out
        and out.count("cannot train from step 0 to 100") == 1
    )


@pytest.mark.parametrize(
    "arguments, answer",
    [
        ("", "usage: dimred check METHOD"),
        ("sparsity=0.5", "usage: dimred check METHOD"),
        ("--foo snip", "--foo"),
        ("rigel", "unknown method 'rigel'. Did you mean 'rigl'"),
        ("snip exampels=3", "Did you mean 'examples'"),
        (
            "MODULE.Waiting",
            "needs a value for steps. Give it: dimred check MODULE.Waiting steps=...",
        ),
        ("MODULE.Waiting stops=3", "unknown key method.stops. Did you mean 'steps'"),
        ("MODULE.Nothing", "cannot be imported"),
        ("snip --config-dir", "--config-dir needs a value"),
    ],
)
def test_check_reports_mistakes_in_its_arguments(
    arguments: str, answer: str, dimred: Callable[..., Outcome]
) -> None:
    code, _, err = dimred("check", *arguments.replace("MODULE", __name__).split())
    assert code == 1 and answer.replace("MODULE", __name__) in err and "Traceback" not in err, err


@dataclass(frozen=True)
class Waiting:
    """Trains in two parts."""

    steps: int

    def run(self, net: Net, train: Train) -> None:
        train(0, self.steps)
        train(self.steps)
