"""One run on several processes equals the same run on one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, Outcome, assert_same, compose, result_of, steps_done, twin, until
from own_trackers import calls
from several import as_rank, free_port, on_ranks
from small_data import PLAIN
from torch import Tensor, nn
from torch.distributed import HashStore
from toy import RECIPE, Blobs, model, set_up

from dimred.conformance import Make
from dimred.conformance.observe import difference, run
from dimred.conformance.on_ranks import compare
from dimred.data import Digits
from dimred.data.share import Share
from dimred.net import Net
from dimred.net.synchronised import synchronised
from dimred.runs.processes import attempt
from dimred.training.evaluate import RunningLoss
from dimred.training.group import Group, explained
from dimred.training.loop import Train

GREY = {**PLAIN, "mean": None, "std": None}
#: one of a kind: chosen at the start, dense, rewired, with scores and a penalty, in rounds
METHODS = ("snip", "dense", "rigl", "continuous_sparsification", "imp")


def agreement(make: Make, **how: Any) -> dict[str, Any] | None:
    found = compare(make, **how)
    return found and {**asdict(found), "agrees": found.agrees}


# -- on two processes --------------------
def norm_on_ranks() -> list[Any]:
    """Of a part of a batch: the outputs, the gradients, and the running statistics of a norm."""
    ranks, norm = Group(), norm_of_three()
    part = ranks.share.of(5)
    images = batch_of_five()[part].requires_grad_()
    with synchronised([norm], ranks.gather):
        out = norm(images)
        (out * weighting()[part]).sum().backward()
    ranks.sum([norm.weight.grad, norm.bias.grad])
    return [value.tolist() for value in seen(norm, out, images)]


def norm_of_three() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3).double()
    norm.weight.data.copy_(torch.tensor([0.5, 1.0, 2.0]))
    return norm


def batch_of_five() -> Tensor:
    return torch.arange(120, dtype=torch.float64).sin().view(5, 3, 2, 4)


def weighting() -> Tensor:
    return torch.arange(120, dtype=torch.float64).cos().view(5, 3, 2, 4)


def seen(norm: nn.BatchNorm2d, out: Tensor, images: Tensor) -> list[Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.weight.grad is not None and norm.bias.grad is not None and images.grad is not None
    whole = [norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
    return [out.detach(), images.grad, *whole]


def captured_steps(make: Make) -> list[Any]:
    """How many steps were replayed graphs, and how the net differs from that of eager steps."""
    nets = []
    for emulated in (True, False):
        nets.append(run(make(), "residual", steps=40, emulated=emulated, ranks=Group()))
    return [nets[0].trace.captured, difference(nets[0].trace.state, nets[1].trace.state)]


def mean_loss(pieces: Sequence[int]) -> float:
    """Of as many steps as the pieces have in all, whose losses are read piece by piece."""
    ranks = Group()
    shares = torch.arange(60).sin().view(3, 20) ** 2
    running = RunningLoss(RECIPE, 20, torch.device("cpu"), ranks)
    logits = torch.zeros(1, 2)
    losses = iter(shares[ranks.share.rank])
    for piece in pieces:
        for _ in range(piece):
            running.add(next(losses), logits, torch.zeros(1, dtype=torch.int64))
            running.count()
        mean, _ = running.read(piece)
    return mean


def different_supports() -> None:
    ranks, (net, _) = Group(), set_up()
    kept = {"4.weight": torch.arange(10) + 5 * ranks.share.rank}
    net.keep(kept)
    ranks.require_same_net(net)


def different_values() -> None:
    ranks, (net, _) = Group(), set_up()
    with torch.no_grad():
        net.weights["6.weight"].psi[3] += ranks.share.rank
    ranks.require_same_net(net)


def local_statistics() -> list[Any]:
    """What the pauses of a step see of a norm on each rank, and which units dropout drops."""
    ranks = Group()
    net = Net(nn.Sequential(model()[:3], nn.Dropout(0.5), *model()[3:]), seed=0)
    train = Train(net, Blobs(), RECIPE, ranks=ranks)
    dropped = list[Tensor]()
    net.model[1].register_forward_hook(lambda module, given, out: dropped.append(out == 0))
    found = []
    for t in train.steps(0, 3):
        norm = net.model[0][1]
        found.append(norm.running_mean.tolist() + torch.rand(2).tolist())
        assert t == len(found) - 1
    return [found, dropped[-1].int().flatten().tolist()]


def refusal(**recipe: Any) -> None:
    net = Net(model(), seed=3)
    Train(net, Blobs(), replaced(recipe), ranks=Group())


def replaced(recipe: Mapping[str, Any]) -> Any:
    from dataclasses import replace

    return replace(RECIPE, **recipe)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """By rank and name, all that the tests below look at."""
    makes = {name: Make(name, compose(f"method={name}")) for name in METHODS}
    rigl = partial(agreement, makes["rigl"])
    works: dict[str, Callable[[], Any]] = {
        **{name: partial(agreement, make) for name, make in makes.items()},
        "uneven": partial(rigl, batch_size=15),
        "smoothed": partial(rigl, label_smoothing=0.1, clip=0.5),
        "bf16": partial(rigl, bf16=True),
        "captured": partial(captured_steps, makes["rigl"]),
        "norm": norm_on_ranks,
        "supports": different_supports,
        "values": different_values,
        "local": local_statistics,
        "cache": partial(refusal, cache_frozen_mb=10),
        "channels": partial(refusal, skip_removed_channels=True),
        "auto": partial(refusal, arithmetic="auto"),
        "few": partial(refusal, batch_size=1),
    }
    return on_ranks(works, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", [*METHODS, "uneven", "smoothed"])
def test_two_processes_train_the_same_weights_with_the_same_losses_as_one(
    found: list[dict[str, Any]], name: str
) -> None:
    assert found[0][name]["agrees"], found[0][name]


def test_captured_steps_on_two_processes_end_with_the_bits_of_eager_ones(
    found: list[dict[str, Any]],
) -> None:
    for captured, different in (rank["captured"] for rank in found):
        assert captured > 20
        assert different == ""


def test_under_bf16_two_processes_train_with_nearly_the_same_losses(
    found: list[dict[str, Any]],
) -> None:
    assert found[0]["bf16"]["loss"] < 0.02


def test_a_step_reduces_what_is_trained_and_no_more(found: list[dict[str, Any]]) -> None:
    """The residual net has 864 covered weights, 86 biases and norms, and running statistics of
    40 numbers."""
    net = run_alone("dense")
    others = sum(p.numel() for p in net.uncovered.values())
    moving = sum(b.numel() for b in net.model.buffers() if b.is_floating_point())
    assert found[0]["dense"]["sent"] == 4 * (net.total + others + moving)
    assert found[0]["snip"]["sent"] == 4 * (round(0.4 * net.total) + others + moving)


def run_alone(method: str) -> Net:
    make = Make(method, compose(f"method={method}"))
    return run(make(), "residual", steps=1)


def test_a_norm_over_two_processes_is_one_over_the_whole_batch(
    found: list[dict[str, Any]],
) -> None:
    norm, images = norm_of_three(), batch_of_five().requires_grad_()
    out = norm(images)
    (out * weighting()).sum().backward()
    one, other = (rank["norm"] for rank in found)
    assert one[2:] == other[2:]
    joined = [one[0] + other[0], one[1] + other[1], *one[2:]]
    for got, expected in zip(joined, seen(norm, out, images), strict=True):
        torch.testing.assert_close(torch.tensor(got, dtype=torch.float64), expected)


def test_the_reported_loss_does_not_depend_on_when_a_checkpoint_was_written(
    tmp_path: Path,
) -> None:
    """A checkpoint reads the losses of the steps before it. The order in which gloo sums those of
    three processes depends on their number."""
    works = {str(pieces): partial(mean_loss, pieces) for pieces in ([20], [7, 13], [1, 18, 1])}
    for rank in on_ranks(works, 3, tmp_path):
        assert len({*rank.values()}) == 1, rank


@pytest.mark.parametrize("what, layer", [("supports", "4.weight"), ("values", "6.weight")])
def test_processes_with_different_nets_are_an_error_that_names_rank_and_layer(
    found: list[dict[str, Any]], what: str, layer: str
) -> None:
    for rank in found:
        assert f"rank 1 has other trained weights in {layer} than rank 0" in rank[what]


def test_at_the_pause_all_processes_have_the_statistics_and_random_numbers_of_the_first(
    found: list[dict[str, Any]],
) -> None:
    """So that scores of the same examples are the same; within a step, dropout differs."""
    (pauses, dropped), (same_pauses, dropped_elsewhere) = (rank["local"] for rank in found)
    assert pauses == same_pauses
    assert pauses[0] != pauses[1]
    assert dropped != dropped_elsewhere


@pytest.mark.parametrize(
    "what, words",
    [
        ("cache", "recipe.cache_frozen_mb=10 is not allowed. It must be 0 in a run on 2"),
        ("channels", "recipe.skip_removed_channels=true is not allowed. It must be false in a"),
        ("auto", "recipe.arithmetic=auto is not allowed. It must be dense or sparse in a run"),
        ("few", "recipe.batch_size=1 is not allowed. It must be 2 or more in a run on 2 proc"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_in_words(
    found: list[dict[str, Any]], what: str, words: str
) -> None:
    assert found[0][what].startswith(words)


# -- shares of the data --------------------
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_shares_of_a_batch_are_the_whole_batch(size: int, fixed: bool) -> None:
    data = Digits(**GREY | {"crop_padding": 1, "flip": True})
    whole = [feed_of(data, Share(), fixed)]
    shares = [feed_of(data, Share(rank, size), fixed) for rank in range(size)]
    for parts, (expected,) in zip(zip(*shares, strict=True), zip(*whole, strict=True), strict=True):
        for got, images_or_labels in zip(zip(*parts, strict=True), expected, strict=True):
            assert torch.equal(torch.cat(got), images_or_labels)
    sizes = [len(labels) for _, labels in next(zip(*shares, strict=True))]
    assert max(sizes) - min(sizes) <= 1


def feed_of(data: Digits, share: Share, fixed: bool) -> list[tuple[Tensor, Tensor]]:
    """The batches 2 to 4 of the epoch 1."""
    feed = data.feed(30, fixed, share)
    found = []
    for _ in feed.steps(7, 1, 2):
        images, labels = feed.batch()
        found.append((images.clone(), labels.clone()))
        if len(found) == 3:
            break
    return found


@pytest.mark.parametrize("data", [Digits(**GREY), Blobs()])
def test_every_example_is_evaluated_by_one_process(data: Any) -> None:
    expected = torch.cat([images for images, _ in data.eval_batches("test")])
    parts = [part for rank in range(3) for part in data.eval_shares(Share(rank, 3), "test")]
    assert torch.equal(torch.cat([images for images, _ in parts]), expected)


# -- the command line --------------------
Start = Callable[..., Command]


def start_on_ranks(start: Start, *arguments: str, size: int = 2) -> list[Command]:
    port = free_port()
    return [start(*arguments, before=as_rank(rank, size, port)) for rank in range(size)]


def waited(commands: list[Command]) -> list[Outcome]:
    return [command.wait() for command in commands]


def test_the_first_process_writes_and_prints_the_run_and_the_others_nothing(
    start: Start, tmp_path: Path
) -> None:
    words = ("train", "method=rigl", "recipe.steps=60", "method.update_every=20")
    first, other = waited(start_on_ranks(start, *words, f"outputs={tmp_path}"))
    assert (first.code, other.code) == (0, 0), first.err + other.err
    assert (other.out, other.err) == ("", "")
    result = result_of(Path(first.out.splitlines()[-1].strip()))
    assert result["processes"] == 2 and result["batchnorm"] == "share of the batch"
    # 10 % of 50200 weights, 410 biases; in three of 60 steps the gradients of all weights, too
    expected = 4 * (5020 + 410) + 4 * 50200 * 2 / 60
    assert result["reduced_bytes_per_step"] == pytest.approx(expected)


@pytest.mark.parametrize("how", ["-m", "hydra.mode=MULTIRUN"])
def test_a_sweep_on_several_processes_is_refused_in_words(start: Start, how: str) -> None:
    outcome = start("train", how, "seed=0,1", before=as_rank(0, 2, free_port())).wait()
    assert outcome.code == 1
    assert "torchrun starts one run on all of its processes, and -m computes several" in outcome.err


def test_a_batch_that_has_no_part_for_a_process_is_refused_in_words(
    start: Start, tmp_path: Path
) -> None:
    words = ("train", "recipe.batch_size=1", f"outputs={tmp_path}")
    for outcome in waited(start_on_ranks(start, *words)):
        assert outcome.code == 1
        assert "recipe.batch_size=1 is not allowed. It must be 2 or more" in outcome.err


def test_torchrun_repeats_the_message_of_an_error_at_the_end_of_its_own(tmp_path: Path) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
    words = ("train", "recipe.skip_removed_channels=true", f"outputs={tmp_path}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "-m", "dimred", *words], env=environment, capture_output=True, text=True
    )
    _, _, end = done.stderr.partition("Root Cause")
    assert done.returncode == 1
    assert "recipe.skip_removed_channels=true is not allowed. It must be false in a run" in end


# -- interrupted runs --------------------
def test_all_processes_of_an_attempt_have_a_name_that_no_earlier_one_had() -> None:
    """Whatever the store still has of the earlier one."""
    store, names = HashStore(), list[str]()
    for _ in range(2):
        with ThreadPoolExecutor(3) as threads:
            found = {*threads.map(lambda rank: attempt(store, rank, 3), range(3))}
        assert len(found) == 1
        names += found
    assert names[0] != names[1]


LONG = ("train", "method=rigl", "method.update_every=20", "recipe.epochs=20")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on two processes that nothing has interrupted."""
    folder, port = tmp_path_factory.mktemp("whole"), free_port()
    arguments = (*LONG, f"outputs={folder}")
    commands = [Command(arguments, folder / f".{i}", as_rank(i, 2, port)) for i in range(2)]
    assert [outcome.code for outcome in waited(commands)] == [0, 0]
    (run,) = folder.glob("runs/*/*/*")
    return run


def test_torchrun_restarts_a_run_that_lost_a_process_and_it_ends_with_the_same_bits(
    whole: Path, tmp_path: Path
) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2")
    words = (*LONG, f"outputs={tmp_path}", "checkpoint_seconds=0")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "stderr", "w") as stderr:
        command = subprocess.Popen(
            [*torchrun, "--max-restarts=1", "-m", "dimred", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    folder = twin(whole, tmp_path)
    try:
        until(lambda: steps_done(folder) > 20)
        started = subprocess.run(["pgrep", "-P", str(command.pid)], capture_output=True, text=True)
        os.kill(max(map(int, started.stdout.split())), signal.SIGKILL)
        assert command.wait(100) == 0
    finally:
        command.kill()
        command.wait()
    assert_same(folder, whole)
    said = (tmp_path / "stderr").read_text()
    assert "dimred: another process of this run has ended or cannot be reached" in said
    assert "Repeat the command to resume from the last checkpoint" in said
    assert "dimred: resumed at step" in said


def test_a_run_that_lost_a_process_is_interrupted_and_has_not_failed(
    start: Start, tmp_path: Path
) -> None:
    tracked = tmp_path / "lines.jsonl"
    words = (*LONG, f"outputs={tmp_path}", "checkpoint_seconds=0")
    lines = ("+tracker.lines._target_=own_trackers.Lines", f"+tracker.lines.path={tracked}")
    first, other = start_on_ranks(start, *words, *lines)
    checkpoints = "runs/*/*/*/checkpoint/last.safetensors"
    until(lambda: list(tmp_path.glob(checkpoints)))
    (folder,) = tmp_path.glob("runs/*/*/*")
    os.kill(other.pid, signal.SIGKILL)
    code, _, err = first.wait()
    assert code == 1 and err.count("another process of this run has ended") == 1
    assert not (folder / "result.json").exists()
    log = (folder / "log.txt").read_text()
    assert log.count("another process of this run has ended") == 1 and "Traceback" not in log
    assert calls(tracked, "end") == [{"status": "interrupted"}]
    assert "resumed at step" in start(*words, *lines).wait().err
    assert result_of(folder)["status"] == "done"


def test_a_signal_to_one_process_saves_the_run_of_all_and_one_process_resumes_it(
    whole: Path, start: Start, tmp_path: Path
) -> None:
    words = (*LONG, f"outputs={tmp_path}")
    commands = start_on_ranks(start, *words, "checkpoint_seconds=0")
    folder = twin(whole, tmp_path)
    until(lambda: steps_done(folder) > 20)
    os.kill(commands[1].pid, signal.SIGTERM)
    first, other = waited(commands)
    assert (first.code, other.code) == (143, 143), first.err + other.err
    assert "stopped by signal 15 after step" in first.err
    assert other.err == ""
    assert "resumed with processes 1 instead of 2" in start(*words).wait().err
    alone, together = result_of(folder), result_of(whole)
    assert alone["steps"] == together["steps"]
    assert alone["layers"] == together["layers"]
    assert alone["test_loss"] == pytest.approx(together["test_loss"], rel=0.01)


def test_a_signal_also_to_the_workers_that_read_images_saves_the_run(
    start: Start, pictures: Path, tmp_path: Path
) -> None:
    """torchrun sends SIGTERM to all processes of a session, as a terminal does with Ctrl-C."""
    words = ("train", "method=dense", "dataset=imagefolder", f"dataset.path={pictures}")
    more = ("dataset.in_memory=false", "dataset.resize=8", "dataset.workers=1", "model=lenet300")
    often = ("recipe.batch_size=4", "recipe.epochs=1000", "checkpoint_seconds=0")
    commands = start_on_ranks(start, *words, *more, *often, f"outputs={tmp_path}")
    until(lambda: [*tmp_path.glob("runs/*/*/*/checkpoint/last.safetensors")])
    for command in commands:
        os.killpg(command.pid, signal.SIGTERM)
    first, other = waited(commands)
    assert (first.code, other.code) == (143, 143), first.err + other.err
    assert "stopped by signal 15 after step" in first.err


def test_a_process_without_memory_says_so_and_blames_no_other() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="in a reduction"), explained():
        raise torch.OutOfMemoryError("in a reduction")
