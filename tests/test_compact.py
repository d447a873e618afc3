"""Export and import: a compact file gives the same network again, to the bit."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from compact import DIGITS, Json, built, same, sparse
from conftest import Outcome, result_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dimred.errors import UserError
from dimred.net import Net
from dimred.runs.compact_file import load_compact, save_compact
from dimred.runs.nets import load_net, load_run
from dimred.storage.sizes import storage


# -- the same again --------------------
@pytest.mark.parametrize(
    "net_and_about",
    [
        lambda: built("model=lenet300"),
        lambda: sparse(0.02, "zero", "model=lenet300"),
        lambda: sparse(0.02, "init", "model=lenet300"),
        lambda: sparse(0.3, "init", "model=resnet20"),
        lambda: sparse(0.3, "zero", "model=conv2", "model.init=torch_default"),
        lambda: sparse(1, "zero", "model=lenet300", "seed=9000000000"),
        lambda: sparse(0.1, "init", "model=conv2", "basis=layer"),
        lambda: sparse(0.1, "zero", "model=conv2", "basis=power"),
    ],
    ids=["initial", "pruned", "frozen", "frozen-resnet", "pruned-conv", "dense", "basis", "power"],
)
def test_a_file_makes_the_same_network_again(
    net_and_about: Callable[[], tuple[Net, Json]], tmp_path: Path
) -> None:
    net, about = net_and_about()
    size = save_compact(tmp_path / "net.dimred", net, about)
    assert size == (tmp_path / "net.dimred").stat().st_size
    assert same(load_compact(tmp_path / "net.dimred"), net)


def test_a_file_takes_little_more_than_its_numbers(tmp_path: Path) -> None:
    net, about = sparse(0.02, "init", "model=lenet300")
    numbers = 4 * (net.dim + 410)
    assert (
        numbers
        < save_compact(tmp_path / "net.dimred", net, about)
        < numbers + 0.15 * net.total / 8 + 500
    )


def test_half_precision_halves_the_numbers_and_hardly_changes_the_logits(tmp_path: Path) -> None:
    net, about = sparse(0.2, "init", "model=lenet300")
    whole, half = (
        save_compact(tmp_path / f"{half}.dimred", net, about, half) for half in (False, True)
    )
    assert whole - half == pytest.approx(2 * (net.dim + 410), abs=60)
    images = torch.rand(5, *DIGITS)
    with torch.no_grad():
        logits, expected = load_compact(tmp_path / "True.dimred")(images), net(images)
    assert torch.allclose(logits, expected, atol=5e-3) and not torch.equal(logits, expected)


def test_a_number_too_large_for_half_precision_is_reported(tmp_path: Path) -> None:
    net, about = sparse(0.1, "zero", "model=lenet300")
    with torch.no_grad():
        net.weights["fc1.weight"].psi[3] = 1e5
    with pytest.raises(
        UserError, match=r"100000 is too large for half precision. Leave out --half"
    ):
        save_compact(tmp_path / "net.dimred", net, about, half=True)
    assert "bitmap" in storage(net, 0) and not [
        name for name in storage(net, 0) if name.endswith("_half")
    ]
    save_compact(tmp_path / "net.dimred", net, about)


def test_weights_that_no_seed_draws_are_stored(tmp_path: Path) -> None:
    net, _ = sparse(1, "zero", "model=lenet300", "seed=1")
    save_file(net.state_dict(), tmp_path / "pretrained.safetensors")
    twin, about = built("model=lenet300", f"model.pretrained={tmp_path}/pretrained.safetensors")
    assert save_compact(tmp_path / "net.dimred", twin, about) > 4 * net.total
    (tmp_path / "pretrained.safetensors").unlink()
    assert same(load_compact(tmp_path / "net.dimred"), net)


def test_writing_leaves_the_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    save_compact(tmp_path / "net.dimred", *built("model=lenet300"))
    load_compact(tmp_path / "net.dimred")
    assert torch.equal(before, torch.get_rng_state())


class Stateful(nn.Module):
    """Computes with something that is in none of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.shift = nn.Linear(64, 10), 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) + self.shift


def stateful(*, shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Stateful()


def test_a_model_that_is_more_than_its_tensors_is_not_written(tmp_path: Path) -> None:
    net = Net(Stateful())
    net.model.shift = 1.0  # type: ignore[assignment]
    with pytest.raises(
        UserError, match=r"Stateful computes something else when it is made again.*--format dense"
    ):
        save_compact(
            tmp_path / "net.dimred",
            net,
            {"model": {"_target_": f"{__name__}.stateful"}, "shape": list(DIGITS), "classes": 10},
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "overrides",
    [
        ["method=freezenet", "sparsity=0.95"],
        ["method=edge_popup", "sparsity=0.5"],
        ["method=signed_supermask"],
        *(
            ["method=intrinsic_dimension", f"method.projection={kind}", "method.dim=40"]
            for kind in ("dense", "sparse", "fastfood")
        ),
    ],
    ids=lambda overrides: "-".join(overrides[:2]),
)
def test_a_run_is_exported_and_imported(
    overrides: list[str], train: Callable[..., Path], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    run, files = (
        train("recipe.steps=3", *overrides),
        [tmp_path / name for name in ("a.dimred", "b", "c")],
    )
    assert dimred("export", str(run), str(files[0]), "--format", "compact").code == 0
    assert dimred("export", str(run), str(files[2])).code == 0
    net = load_net(run)
    assert files[0].stat().st_size < 1.05 * result_of(run)["storage_bytes"] + 600
    assert files[0].stat().st_size == result_of(run)["compact_file_bytes"]
    shutil.rmtree(run)
    assert dimred("import", str(files[0]), str(files[1])).code == 0
    assert same(load_compact(files[0]), net)
    imported, exported = map(load_file, files[1:])
    assert all(torch.equal(imported[name], value) for name, value in exported.items())


def test_a_vision_transformer_trains_and_comes_back(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    run = train(
        "model=vit",
        "model.dim=16",
        "model.depth=1",
        "model.heads=2",
        "method=freezenet",
        "sparsity=0.8",
        "recipe.steps=3",
    )
    net, about = load_run(run)
    save_compact(tmp_path / "net.dimred", net, about)
    assert same(load_compact(tmp_path / "net.dimred"), net)
    name = "blocks.0.attention.qkv.weight"
    first, last = net.initial()[name], net.state_dict()[name]
    trained = net.weights[name].trained().view(last.shape)
    assert torch.equal(last != first, trained) and trained.any()
    total = 12 * 16**2 + 2 * 2 * 16 + 16 * 10
    assert result_of(run)["total"] == total and result_of(run)["dim"] == round(0.2 * total)


def test_a_run_keeps_the_pretrained_weights_that_it_froze(
    train: Callable[..., Path], tmp_path: Path
) -> None:
    pretrained = tmp_path / "pretrained.safetensors"
    save_file(built("model=lenet300", "seed=1")[0].state_dict(), pretrained)
    runs = [
        train("recipe.steps=3", f"model.pretrained={pretrained}", *more)
        for more in (["method=freezenet", "sparsity=0.95"], ["sparsity=0.9"])
    ]
    frozen = load_net(runs[0]).state_dict()
    first = load_file(pretrained)["fc1.weight"]
    assert 0.9 < float((frozen["fc1.weight"] == first).float().mean()) < 1
    pretrained.unlink()
    assert all(
        torch.equal(value, frozen[name]) for name, value in load_net(runs[0]).state_dict().items()
    )
    load_net(runs[1])


def test_equal_runs_write_equal_bytes(train: Callable[..., Path], tmp_path: Path) -> None:
    start = tmp_path / "start.safetensors"
    save_file(built("model=lenet300", "seed=1")[0].state_dict(), start)
    runs = [
        train(
            "recipe.steps=3",
            "method=freezenet",
            f"model.pretrained={start}",
            f"data_dir={tmp_path / place}",
            outputs=tmp_path / place,
        )
        for place in ("here", "there")
    ]
    for name in ("model.safetensors", "masks.npz"):
        one, other = ((run / name).read_bytes() for run in runs)
        assert one == other and str(tmp_path).encode() not in one


def test_an_export_never_overwrites_a_run_or_its_source(
    finished: Path, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    run, file = finished, tmp_path / "net.dimred"
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert dimred("export", str(run), str(file), "--format", "compact").code == 0
    content = file.read_bytes()
    os.mkfifo(tmp_path / "pipe")
    for arguments, message in [
        (("export", run, run / "model.safetensors"), "part of a run"),
        (("import", file, run / "x"), "part of a run"),
        (("import", file, file), "the file that is read"),
        (("export", run, ""), "cannot write to ''"),
        (("export", run, tmp_path / "pipe"), "that is not a file"),
        (("import", file, tmp_path), "that is not a file"),
    ]:
        outcome = dimred(*map(str, arguments))
        assert outcome.code == 1 and message in outcome.err and outcome.err.count("\n") == 1, (
            outcome.err
        )
    assert (
        before == {path: path.read_bytes() for path in run.iterdir()}
        and file.read_bytes() == content
    )


# -- other programs --------------------
def logits_of(run: Path, images: Tensor) -> Tensor:
    net = load_net(run)
    net.train(False)
    with torch.no_grad():
        return net(images)


def test_onnx_computes_the_same_logits(
    train: Callable[..., Path], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = train("recipe.steps=3", "method=freezenet", "model=resnet20")
    outcome = dimred("export", str(run), str(tmp_path / "net.onnx"), "--format=onnx")
    assert outcome.code == 0, outcome.err
    session = onnxruntime.InferenceSession(
        tmp_path / "net.onnx", providers=["CPUExecutionProvider"]
    )
    for count in (1, 5):  # batches of any size
        images = torch.rand(count, *DIGITS)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        np.testing.assert_allclose(logits, logits_of(run, images), atol=1e-4)
    assert [path.name for path in tmp_path.glob("net*")] == ["net.onnx"]


def test_a_torch_program_computes_equal_logits(
    train: Callable[..., Path], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    run, images = train("recipe.steps=3", "method=snip", "model=conv2"), torch.rand(5, *DIGITS)
    outcome = dimred("export", str(run), str(tmp_path / "net.pt2"), "--format", "torch-export")
    assert outcome.code == 0, outcome.err
    program = torch.export.load(tmp_path / "net.pt2").module()
    assert torch.equal(program(images), logits_of(run, images)) and program(images[:1]).shape == (
        1,
        10,
    )


def test_channels_that_are_removed_are_left_out(
    train: Callable[..., Path], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    run = train("recipe.steps=3", "method=l1_filters", "model=conv2", "sparsity=0.8")
    outcome = dimred(
        "export", str(run), str(tmp_path / "net.pt2"), "--format", "compacted-channels"
    )
    assert outcome.code == 0, outcome.err
    program, images = torch.export.load(tmp_path / "net.pt2").module(), torch.rand(5, *DIGITS)
    assert torch.allclose(program(images), logits_of(run, images), atol=1e-5)
    left = sum(p.numel() for p in program.parameters())
    assert (
        left < 0.3 * result_of(run)["parameters"]
        and f"{left} of {result_of(run)['parameters']}" in outcome.out
    )


def without_onnx() -> None:
    sys.modules["onnx"] = None  # type: ignore[assignment]


def test_a_missing_library_is_named_with_the_extra_that_has_it(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = dimred(
        "export", str(tmp_path), str(tmp_path / "x.onnx"), "--format", "onnx", before=without_onnx
    )
    assert (
        outcome.code == 1
        and "pip install 'dimred[onnx]'" in outcome.err
        and "Traceback" not in outcome.err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "export a b --format tflite",
            "unknown format 'tflite'. Allowed: compact, compacted-channels, dense",
        ),
        ("export a b --format compct", "Did you mean 'compact'"),
        ("export a b --format", "--format needs a value"),
        ("export a b --half", "--half needs --format compact"),
        ("export a b --hlaf", "unknown option --hlaf"),
        ("export a --format compact", "usage: dimred export RUN FILE"),
        ("import a", "usage: dimred import FILE OUT"),
        ("import nowhere b", "cannot read nowhere"),
        ("export nowhere b --format compact", "there is no such folder"),
    ],
)
def test_mistakes_are_answered(
    arguments: str, message: str, dimred: Callable[..., Outcome]
) -> None:
    outcome = dimred(*arguments.split())
    assert outcome.code == 1 and message in outcome.err and outcome.err.count("\n") == 1, (
        outcome.err
    )
