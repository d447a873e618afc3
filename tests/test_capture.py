"""Captured training steps: what may be captured, and that captured steps end with the same bits.

On a CPU, CUDA graphs are emulated (conformance/emulated_graph.py). The conformance suite does so
for every method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import Outcome, compose
from torch import Tensor, nn

from dimred.conformance.emulated_graph import EmulatedGraph
from dimred.conformance.observe import difference, step_as_on_a_gpu
from dimred.conformance.toy import RECIPE, Blobs, conv_norm
from dimred.data.arrays import Examples
from dimred.data.memory import Memory
from dimred.errors import UserError
from dimred.methods.supermasks.edge_popup import best_of, best_on_device
from dimred.net import Net
from dimred.net.eager import SGD
from dimred.net.fused import FusedWeights, fuse, used_in_half
from dimred.net.transforms import Transform
from dimred.runs.identity import describe
from dimred.training.capture import CapturedStep, use_own_stream
from dimred.training.loop import Train
from dimred.training.tape import Recorder


# -- weights written at once --------------------
def sparse_net(**how: Any) -> Net:
    torch.manual_seed(0)
    net = Net(conv_norm(), **how)
    draws = torch.Generator().manual_seed(1)
    for name in net.weights:
        size = net.weights[name].size
        support = torch.randperm(size, generator=draws)[: size // 3].sort().values
        net.keep({name: support}, "init" if name == "3.weight" else "zero")
    return net


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_written_at_once_are_the_base_with_psi_at_the_support(
    dtype: torch.dtype, channels_last: bool
) -> None:
    net = sparse_net()
    fused = FusedWeights(net.weights, dtype, channels_last)
    draws = torch.Generator().manual_seed(2)
    for _ in range(2):
        thetas = fused.thetas()
        dense = {name: torch.randn(t.shape, generator=draws) for name, t in thetas.items()}
        loss = torch.stack([(thetas[name] * dense[name]).sum() for name in thetas]).sum()
        loss.backward()
        for name, w in net.weights.items():
            expected = net.initial()[name].flatten() if name == "3.weight" else torch.zeros(w.size)
            expected[w.support] = w.psi.detach()
            assert torch.equal(thetas[name].flatten(), expected.to(dtype))
            assert thetas[name].data_ptr() % 64 == 0
            if channels_last and thetas[name].dim() == 4:
                assert thetas[name].is_contiguous(memory_format=torch.channels_last)
            gradient = dense[name].flatten()[w.support].to(dtype).float()
            assert w.psi.grad is not None and torch.equal(w.psi.grad, gradient)
            with torch.no_grad():
                w.psi.add_(0.5)
            w.psi.grad = None


def test_other_coordinates_of_the_same_number_are_written_in_the_same_place() -> None:
    net = sparse_net()
    fused = FusedWeights(net.weights, torch.float32, True)
    place = fused.thetas()["0.weight"].data_ptr()
    net.keep({"0.weight": torch.arange(12)})
    assert fused.refill()
    theta = fused.thetas()["0.weight"]
    assert theta.data_ptr() == place
    assert torch.equal(theta.flatten(), net.weights["0.weight"].dense())
    net.keep({"0.weight": torch.arange(11)})
    assert not fused.refill()


def test_only_weights_of_which_a_part_trains_are_written_at_once() -> None:
    net = sparse_net()
    net.keep({"0.weight": None, "3.weight": torch.arange(0)})
    halves = used_in_half(net.model)
    assert {name for name in net.weights if name not in halves} == set()
    names = [list(each.weights) for each in fuse(net.weights, {"9.weight"}, True)]
    assert names == [["9.weight"], ["11.weight"]]


# -- batches --------------------
class Images(Memory):
    """20 images of 3x8x8 with random pixels."""

    name = "images"

    def read(self) -> tuple[Examples, ...]:
        draws = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (30, 3, 8, 8), dtype=torch.uint8, generator=draws)
        labels = torch.arange(30) % 4
        return Examples(pixels[:20], labels[:20]), Examples(pixels[20:], labels[20:])


@pytest.mark.parametrize(("crop_padding", "flip"), [(0, False), (2, True)])
def test_batches_selected_in_the_step_are_those_of_the_epoch(crop_padding: int, flip: bool) -> None:
    data = Images(
        val_fraction=0.0, resize=None, mean=None, std=None, crop_padding=crop_padding, flip=flip
    )
    feed, tapes = data.feed(6, fixed=True), []
    for epoch, start in ((0, 0), (1, 0), (2, 1)):
        expected = list(data.train_batches(6, 5, epoch, start))
        seen = 0
        for _ in feed.steps(5, epoch, start):
            with Recorder() as recorder:
                images, labels = feed.batch()
            tapes.append(recorder.tape)
            assert torch.equal(images, expected[seen][0]) and torch.equal(labels, expected[seen][1])
            seen += 1
        assert seen == len(expected) == 3 - start
    assert not any(tapes[0].difference(tape) for tape in tapes[1:])


def test_batches_of_other_data_are_copied_to_the_same_place() -> None:
    feed = Blobs().feed(8, fixed=True)
    places = set()
    for _, expected in zip(feed.steps(0, 0), Blobs().train_batches(8, 0, 0), strict=True):
        batch = feed.batch()
        places.add((batch[0].data_ptr(), batch[1].data_ptr()))
        assert torch.equal(batch[0], expected[0]) and torch.equal(batch[1], expected[1])
    assert len(places) == 1


class Slices(Blobs):
    """Batches that are views of the data."""

    held: tuple[Tensor, Tensor]

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        batches = zip(self.held[0].split(batch_size), self.held[1].split(batch_size), strict=True)
        yield from list(batches)[start:]


def test_a_feed_leaves_the_data_as_they_are() -> None:
    data = Slices()
    data.held = data.examples(64, 0)
    before = [each.clone() for each in data.held]
    feed = data.feed(8, fixed=True)
    for i, _ in enumerate(feed.steps(0, 0)):
        assert torch.equal(feed.batch()[0], before[0][8 * i : 8 * i + 8])
    assert all(torch.equal(one, two) for one, two in zip(data.held, before, strict=True))


# -- captured steps --------------------
def training(captured: bool, **recipe: Any) -> Train:
    settings = dataclasses.replace(RECIPE, **recipe)
    train = Train(sparse_net(), Blobs(), settings)
    step_as_on_a_gpu(train, captured)
    return train


def psi(net: Net) -> Tensor:
    return torch.cat([w.psi.detach() for w in net.weights.values()])


def test_zero_grad_at_the_pause_of_a_captured_step_takes_no_step() -> None:
    train = training(True)
    kept = psi(train.net)
    for t in train.steps(0, 12):
        before = psi(train.net)
        if t == 8:
            train.net.zero_grad()
        if t == 9:
            assert torch.equal(before, kept)
        kept = before
    assert train.stepper.captured == 9


def thaw(train: Train, t: int) -> None:
    if t == 8:
        train.net.keep({"9.weight": torch.arange(20), "9.bias": None}, "init")


def replace_a_parameter(train: Train, t: int) -> None:
    if t == 8:
        train.net.uncovered["9.bias"].data = torch.ones(12)


def replace_gradients(train: Train, t: int) -> None:
    gradient = train.net.uncovered["9.bias"].grad
    if gradient is not None and t in (8, 9, 12):
        gradient.data = 2 * gradient.data


def start_again(train: Train, t: int) -> None:
    if t == 8:
        train.net.freeze({"0.bias": None})
        train.net.keep({"0.bias": None})


def decay_more(train: Train, t: int) -> None:
    if t == 8:
        train.optimizer.param_groups[0]["weight_decay"] = 0.1


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    "change", [thaw, replace_a_parameter, replace_gradients, start_again, decay_more]
)
def test_changes_at_the_pause_of_a_captured_step_count(
    change: Callable[[Train, int], None], optimizer: str
) -> None:
    states = []
    for captured in (False, True):
        train = training(captured, optimizer=optimizer, lr=0.01)
        if change is thaw:
            train.net.freeze({"9.weight": None, "9.bias": None})
        for t in train.steps(0, 16):
            change(train, t)
        states.append(train.net.state())
        assert train.stepper.captured >= 12 * captured
    assert difference(*states) == ""


@pytest.mark.parametrize(
    "recipe",
    [
        {"accumulate": 3},
        {"ema": 0.9},
        {"mixup": 0.2, "cutmix": 1.0},
        {"clip": 0.1, "bf16": True, "label_smoothing": 0.1},
        {"optimizer": "adamw", "decay_all": True, "schedule": "cosine", "warmup": 0.2},
    ],
    ids=",".join,
)
def test_captured_steps_follow_the_recipe_as_eager_ones_do(recipe: dict[str, Any]) -> None:
    states = []
    for captured in (False, True):
        train = training(captured, **recipe)
        for t in train.steps(dense_grad=lambda t: t % 5 == 4):
            if t == 20:
                train.net.keep({"9.weight": torch.arange(20)})
        states.append(train.net.state() | train.average.state())
        assert train.stepper.captured >= 30 * captured
    assert difference(*states) == ""


def test_fused_sgd_takes_parameters_that_begin_to_train_later() -> None:
    results = []
    for fused in (False, True):
        early, late = (nn.Parameter(torch.arange(4.0)) for _ in range(2))
        how = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
        kind = SGD if fused else torch.optim.SGD
        optimizer = kind([early, late], fused=fused, **how)
        for step in range(4):
            early.grad = torch.full((4,), 1.0 + step)
            late.grad = torch.full((4,), 2.0 + step) if step > 1 else None
            optimizer.step()
        results.append(torch.cat([early, late]).detach())
    torch.testing.assert_close(*results)


def test_gradients_changed_at_the_pause_of_a_captured_step_count() -> None:
    nets = []
    for captured in (False, True):
        train = training(captured, clip=0.5)
        for t in train.steps(0, 12):
            weight = train.net.weights["9.weight"].psi
            assert weight.grad is not None
            if t == 7:
                weight.grad = torch.ones_like(weight.grad)
            if t == 8:
                weight.grad.mul_(2)
        nets.append(train.net)
        assert train.stepper.captured == 9 * captured
    assert torch.equal(psi(nets[0]), psi(nets[1]))


def test_dense_gradients_of_captured_steps_are_those_of_eager_ones() -> None:
    seen: list[list[Tensor]] = [[], []]
    for captured in (False, True):
        train = training(captured)
        for t in train.steps(0, 16, dense_grad=lambda t: t % 4 == 3):
            if t % 4 == 3:
                seen[captured] += [grad.clone() for grad in train.net.grads().values()]
        assert train.stepper.captured == 13 * captured
    assert len(seen[0]) == 16
    assert all(torch.equal(one, two) for one, two in zip(*seen, strict=True))


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_model_whose_bits_may_differ_on_a_gpu_is_named_once(
    deterministic: bool, caplog: pytest.LogCaptureFixture
) -> None:
    pooled = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 2)
    )
    settings = dataclasses.replace(RECIPE, deterministic=deterministic)
    train = Train(Net(pooled), Blobs(), settings)
    step_as_on_a_gpu(train, captured=True)
    for _ in train.steps(0, 8):
        pass
    found = [line for line in caplog.messages if "may differ in bits" in line]
    assert len(found) == deterministic
    assert all("because of aten._adaptive_avg_pool2d_backward." in line for line in found)


def test_two_steps_are_recorded_with_dense_gradients_or_two_without() -> None:
    train = training(True)
    for _ in train.steps(0, 12, dense_grad=lambda t: t % 2 == 0):
        pass
    assert train.stepper.captured == 8 and not train.stepper.reason


def test_dense_gradients_that_stay_on_are_those_of_the_last_step() -> None:
    seen = []
    for captured in (False, True):
        train = training(captured)
        for t in train.steps(0, 12):
            if t == 6:
                train.net.retain_grad(True)
            if t == 10:
                grads = train.net.grads()
                seen.append(grads["9.weight"].clone())
                w = train.net.weights["9.weight"]
                assert torch.equal(w.gather(grads["9.weight"].view(-1)), w.psi.grad)
    assert torch.equal(*seen)


def test_new_supports_of_the_same_size_need_no_new_capture() -> None:
    captures = 0

    def counted(work: Callable[[], None]) -> EmulatedGraph:
        nonlocal captures
        captures += 1
        return EmulatedGraph(work)

    train = training(True)
    assert isinstance(train.stepper, CapturedStep)
    train.stepper._capture = counted
    for t in train.steps(0, 24):
        if t in (8, 16):
            name = "9.weight"
            support = train.net.weights[name].support
            assert support is not None
            train.net.keep({name: (support + 1) % train.net.weights[name].size})
        if t == 20:
            train.net.keep({"9.weight": torch.arange(5)})
    assert captures == 4  # gradients and update, for two numbers of coordinates
    assert train.stepper.captured == 21


class Drifting(Transform):
    """theta times a Python number that changes in every step."""

    factor = 1.0

    def forward(self, theta: Tensor) -> Tensor:
        self.factor += 0.01
        return theta * self.factor


def test_a_required_capture_that_is_impossible_is_refused() -> None:
    train = training(True)
    assert isinstance(train.stepper, CapturedStep)
    train.stepper.required = True
    train.net.add_transforms({"9.weight": Drifting()})
    with pytest.raises(UserError, match=r"aten.mul.Tensor has 1.\d+ in one step and 1.\d+ in the"):
        train(0, 4)


def test_a_required_capture_ends_where_coordinates_change_in_every_step() -> None:
    train = training(True)
    assert isinstance(train.stepper, CapturedStep)
    train.stepper.required, train.stepper.PATIENCE = True, 6
    with pytest.raises(UserError, match="none of the first 6 steps could be captured"):
        for t in train.steps(0, 12):
            train.net.keep({"9.weight": torch.arange(3 + t % 2)})


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
            r"out of memory .* captured as a CUDA graph \(CUDA out of memory.*capture=false",
        ),
        (
            torch.AcceleratorError("CUDA error: operation not permitted when stream is capturing"),
            r"could not be captured as a CUDA graph.*not permitted when stream.*capture=false",
        ),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "unspecified launch"),
    ],
)
def test_a_capture_that_fails_says_what_to_do(error: Exception, message: str) -> None:
    def failing(work: Callable[[], None]) -> EmulatedGraph:
        raise error

    train = training(True)
    assert isinstance(train.stepper, CapturedStep)
    train.stepper._capture = failing
    with pytest.raises((UserError, torch.AcceleratorError), match=message):
        train(0, 8)
    assert train.steps_done == 3


class Streams:
    """torch.cuda's streams: setting one sets its device, too."""

    def __init__(self) -> None:
        self.device, self.current = 0, dict[int, Streams.Stream]()

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.device, self.waits_for = device, set[Any]()

        def wait_stream(self, other: Any) -> None:
            self.waits_for.add(other)

    def current_stream(self, device: torch.device) -> Stream:
        return self.current.setdefault(device.index, Streams.Stream(device))

    def set_stream(self, stream: Stream) -> None:
        self.device = stream.device.index
        self.current[self.device] = stream


def test_runs_on_several_gpus_in_turn_are_each_captured_on_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams, own = Streams(), dict[torch.device, Any]()
    for name in ("current_stream", "set_stream", "Stream"):
        monkeypatch.setattr(torch.cuda, name, getattr(streams, name))
    monkeypatch.setattr("dimred.training.capture.STREAMS", own)
    devices = [torch.device("cuda", i) for i in range(2)]
    before = [streams.current_stream(device) for device in devices]
    for i in (0, 1, 0):
        use_own_stream(devices[i])
        assert streams.device == i and streams.current_stream(devices[i]) is own[devices[i]]
        assert before[i] in own[devices[i]].waits_for


def test_a_captured_net_compiles() -> None:
    nets = []
    for captured in (False, True):
        torch._dynamo.reset()
        train = training(captured)
        train.net.compile(backend="eager")
        train(0, 8)
        nets.append(train.net)
        assert train.stepper.captured == 6 * captured
    assert torch.equal(psi(nets[0]), psi(nets[1]))


# -- runs --------------------
def test_capture_is_refused_without_a_gpu(dimred: Callable[..., Outcome]) -> None:
    code, _, err = dimred("train", "recipe.capture=true", "recipe.steps=3", "device=cpu")
    assert code == 1 and "recipe.capture=true is not allowed" in err and "only a GPU" in err


def test_capture_does_not_change_the_name_of_a_run() -> None:
    net_names = []
    for capture in ("auto", "false"):
        net_names.append(describe(compose(f"recipe.capture={capture}")))
    assert net_names[0] == net_names[1]


# -- masks --------------------
def test_masks_made_on_the_device_are_those_made_on_the_host() -> None:
    draws = torch.Generator().manual_seed(0)
    for _ in range(20):
        score = torch.randint(8, (5, 7), generator=draws).float()
        for k in (0, 1, 9, 20, 34, 35):
            host, device = best_of(score, k), best_on_device(score, k)
            assert torch.equal(host, device) and device.sum() == k


@pytest.mark.gpu
def test_captured_steps_on_a_gpu_end_with_the_same_bits() -> None:
    states = []
    for capture in (False, "auto"):
        net = sparse_net().to("cuda")
        settings = dataclasses.replace(RECIPE, capture=capture)
        train = Train(net, Blobs(device="cuda"), settings)
        net.train(False)
        images, labels = train.sample(16)
        scored = torch.nn.functional.cross_entropy(net(images), labels)  # its graph stays alive
        net.train()
        train()
        assert scored.grad_fn is not None
        states.append(net.state())
        assert train.stepper.captured == (37 if capture else 0)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
