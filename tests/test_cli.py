"""The command line: help, runs and their names, export and
configuration."""

from __future__ import annotations

import dataclasses
import json
import os
import pkgutil
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, SCRIPT, Outcome, compose, compose_method, result_of
from omegaconf import OmegaConf
from run_settings import ALONE, METHODS, QUICK, SHORT, SUITABLE
from safetensors.torch import load_file
from torch import Tensor

from dimred.cli.show import in_words
from dimred.data import Data
from dimred.data.feed import Feed
from dimred.errors import UserError
from dimred.runs.build import build
from dimred.runs.config.files import GROUPS, targets
from dimred.runs.config.schema import checked, checked_group
from dimred.runs.identity import describe, folder_of
from dimred.runs.nets import build_net
from dimred.training.loop import Train


# -- what answers at once --------------------
@pytest.mark.parametrize(
    "arguments, code, part",
    [
        ("", 0, "dimred train"),
        ("--help", 0, "dimred train"),
        ("train --help", 0, " dense "),
        ("show --help", 0, "dimred show"),
        ("--version", 0, "0."),
        ("methods", 0, "rigl"),
        ("methods --json", 0, '"name": "rigl"'),
        ("train --cfg job", 0, "sparsity: 0.9"),
        ("trian", 1, "'train'"),
        ("train sparsty=1", 1, "'sparsity'"),
        ("train method=rigel", 1, "'rigl'"),
        ("train --foo", 1, "unknown option --foo"),
    ],
)
def test_help_and_typos_are_answered_without_torch(arguments: str, code: int, part: str) -> None:
    program = (
        "import sys; from dimred.cli.main import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments.split()], capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert part in (done.stderr if code else done.stdout)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 2


def test_methods_are_listed_with_family_line_and_source(dimred: Callable[..., Outcome]) -> None:
    rows = json.loads(dimred("methods", "--json").out)
    assert sorted(row["name"] for row in rows) == METHODS
    for row in rows:
        assert (
            row["family"]
            and row["summary"].endswith(".")
            and any(c.isdigit() for c in row["source"])
        ), row


# -- runs --------------------
def test_the_summary_states_accuracies_counts_and_time(
    train: Callable[..., Path], dimred: Callable[..., Outcome]
) -> None:
    run = train(SHORT)
    result = result_of(run)
    assert {
        "method": "snip",
        "model": "lenet300",
        "dataset": "digits",
        "sparsity": 0.9,
        "seed": 0,
        "dim": 5020,
        "density": 0.1,
        "total": 50200,
        "steps": 3,
        "status": "done",
    }.items() <= result.items()
    for key in ("test_accuracy", "val_accuracy", "best_val_test_accuracy"):
        assert 0 <= result[key] <= 1
    for key in ("seconds", "peak_memory_bytes", "state_bytes"):
        assert result[key] > 0
    assert sum(layer["trained"] for layer in result["layers"].values()) == 5020
    assert sum(layer["nonzero"] for layer in result["layers"].values()) == 5020
    assert {path.name for path in run.glob("[!.]*")} == {
        "config.yaml",
        "log.txt",
        "masks.npz",
        "metrics.jsonl",
        "model.safetensors",
        "result.json",
    }
    shown = dimred("show", str(run)).out
    assert (
        "fc1.weight" in shown
        and "_target_: dimred.methods.pruning_at_init.single_shot.SNIP" in shown
    )
    assert shown.startswith(f"{run}\n") and re.search(r"\nuncovered +biases: 410\n", shown)
    assert json.loads(dimred("show", "--json", str(run)).out) == result


def test_show_prints_the_command_as_it_was_typed() -> None:
    assert in_words("command", ["dimred train", "-m", "a=[1, 2]"]) == "dimred train -m 'a=[1, 2]'"


def name_of(*overrides: str) -> str:
    cfg = checked(compose(*overrides))
    return folder_of(cfg, {"method": "M", "model": "N", "dataset": "D"}, describe(cfg)).name


def test_the_names_of_folders_never_change() -> None:
    assert name_of() == "M-s0.9-seed0-4c35c56e98"
    assert name_of("method=dense", "seed=3") == "M-seed3-5dc1393d1d"
    assert (
        name_of("method=freezenet", "sparsity=0.95", "model=resnet20", "dataset=cifar10_jpeg")
        == "M-s0.95-seed0-52f80aeeee"
    )


def test_a_class_of_dimred_may_move_and_its_runs_keep_their_names() -> None:
    moved, own = checked(compose()), checked(compose())
    OmegaConf.update(moved, "method._target_", "dimred.elsewhere.SNIP")
    OmegaConf.update(own, "method._target_", "elsewhere.SNIP")
    assert describe(moved) == describe(checked(compose()))
    assert describe(own)["method"]["_target_"] == "elsewhere.SNIP"  # of a user, by its full path


@pytest.mark.parametrize("group", GROUPS)
def test_no_two_classes_of_a_group_have_the_same_name(group: str) -> None:
    found = set(targets(group))
    assert len({target.rpartition(".")[2] for target in found}) == len(found)


def test_a_field_that_is_added_changes_the_names_of_those_runs_alone_that_use_it() -> None:
    fields = {"augment": "method", "decay_all": "recipe", "skip_removed_channels": "recipe"}
    for field, group in fields.items():
        assert field not in describe(checked(compose()))[group]
        assert describe(checked(compose(f"{group}.{field}=true")))[group][field] is True


def test_the_description_is_of_the_result_alone() -> None:
    jpeg = ("dataset=cifar10_jpeg", "model=resnet20")  # its path lies in data_dir
    elsewhere = ("device=cpu", "data_dir=/elsewhere", "outputs=other", "checkpoint_seconds=7")
    for given in ((), jpeg, ("dataset=mnist",)):
        assert name_of(*given) == name_of(*given, *elsewhere)
    names = [
        name_of(),
        *(
            name_of(other)
            for other in (
                "recipe.lr=0.2",
                "recipe.epochs=7",
                "sparsity=0.8",
                "seed=1",
                "allocation=erk",
                "model.init=torch_default",
                "method.examples=64",
                "exclude=[fc3]",
                "dataset.val_fraction=0.2",
            )
        ),
    ]
    assert len(set(names)) == len(names)
    assert (
        name_of("method=dense")
        == name_of("method=dense", "sparsity=0.5")
        == name_of("method=dense", "allocation=erk")
    )


@pytest.mark.parametrize(
    "spellings",
    [
        ("sparsity=0", "sparsity=0.0", "sparsity=-0.0"),
        ("sparsity=0.7", "sparsity=0.7000000000000001"),
        ("seed=2", "seed=2.0"),
        ("recipe.epochs=2", "recipe.epochs=2.0"),
        ("recipe.lr=1", "recipe.lr=1.0", "recipe.lr=1e0"),
        ("method.examples=64", "method.examples=64.0", "method.examples=6.4e1"),
        ("dataset.resize=16", "dataset.resize=16.0"),
        ("recipe.clip=3", "recipe.clip=3.0"),
        ("model=resnet20 model.width=2", "model=resnet20 model.width=2.0"),
        ("method=rigl method.update_every=40", "method=rigl method.update_every=40.0"),
        ("allocation=erk allocation.power=2", "allocation=erk allocation.power=2.0"),
    ],
)
def test_a_number_has_one_identity_however_it_is_typed(spellings: tuple[str, ...]) -> None:
    wholes = [checked(compose(*typed.split())) for typed in spellings]
    texts = {OmegaConf.to_yaml(cfg) for cfg in wholes}
    assert len(texts) == len({name_of(*typed.split()) for typed in spellings}) == 1


def test_a_method_is_built_from_numbers_of_their_annotated_types() -> None:
    built = build(compose("recipe.lr=1", "recipe.batch_size=32.0").recipe, "recipe")
    assert (type(built.lr), type(built.batch_size)) == (float, int)
    # whole numbers as they were
    for typed, every in (("100", "100"), ("100.0", "100"), ("0.02", "0.02")):
        cfg = checked(compose("method=gmp", f"method.update_every={typed}"))
        assert repr(describe(cfg)["method"]["update_every"]) == every


@dataclasses.dataclass(frozen=True)
class Typed:
    """Of a user's own code."""

    whole: int
    real: float
    either: int | float
    perhaps: float | None
    several: tuple[float, ...]
    pair: tuple[int, float]
    named: dict[str, float]
    anything: Any
    of: Any = None


def test_values_take_the_form_of_their_annotations() -> None:
    given = {
        "_target_": "test_cli.Typed",
        "whole": 2.0,
        "real": 1,
        "either": 3.0,
        "perhaps": 4,
        "several": [1, 2.5],
        "pair": [1.0, 1],
        "named": {"a": 1},
        "anything": [1, 1.0, "x"],
        "of": {"_target_": "dimred.select.allocations.ERK", "power": 2},
    }
    values = checked_group(given, "method")
    assert repr(values) == repr(
        given
        | {
            "whole": 2,
            "real": 1.0,
            "either": 3,
            "perhaps": 4.0,
            "several": [1.0, 2.5],
            "pair": [1, 1.0],
            "named": {"a": 1.0},
            "of": {"_target_": "dimred.select.allocations.ERK", "power": 2.0},
        }
    )
    for key, wrong in (
        ("whole", 2.5),
        ("whole", True),
        ("real", "1"),
        ("real", float("nan")),
        ("pair", [1]),
        ("several", 1),
        ("named", [1]),
        ("whole", 1e300),
    ):
        with pytest.raises(UserError, match=f"method.{key}="):
            checked_group(given | {key: wrong}, "method")


def test_a_method_has_the_sparsity_of_its_run_whatever_its_file_says(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "conf/method").mkdir(parents=True)
    text = (ROOT / "conf/method/snip.yaml").read_text().replace("${sparsity}", "0.5")
    (tmp_path / "conf/method/half.yaml").write_text(text)
    own = (
        "train",
        SHORT,
        "--config-dir",
        str(tmp_path / "conf"),
        "method=half",
        f"outputs={tmp_path}",
    )
    refused = dimred(*own)
    assert (
        refused.code == 1
        and "says sparsity: ${sparsity}" in refused.err
        and not list(tmp_path.glob("runs"))
    )
    assert dimred(*own, "sparsity=0.5").code == 0
    assert result_of(next(tmp_path.glob("runs/*/*/half-s0.5-*")))["dim"] == 25100


def test_a_run_does_not_depend_on_where_it_is_started(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    there = partial(os.chdir, tmp_path / "work")
    first = dimred("train", SHORT, "outputs=out", before=there)
    assert first.code == 0 and first.out.splitlines()[-1].strip().startswith(
        "out/runs/digits/lenet300/snip-s0.9-"
    )
    again = dimred("train", SHORT, f"outputs={tmp_path / 'work/out'}")
    assert again.code == 0 and "finished already" in again.err


def test_export_gives_the_plain_model(
    train: Callable[..., Path], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    for arguments in (
        ["method=freezenet", "model=resnet20", SHORT],
        ["method=rigl", "recipe.epochs=1"],
    ):
        run, file = train(*arguments), tmp_path / "new/folder/exported.safetensors"
        assert dimred("export", str(run), str(file)).code == 0
        cfg = compose(*arguments)
        data = build(cfg.dataset, "dataset")
        model = build(cfg.model, "model", shape=data.shape, classes=data.classes).eval()
        model.load_state_dict(load_file(file), strict=True)
        with torch.no_grad():
            right = [
                int((model(images).argmax(1) == labels).sum())
                for images, labels in data.eval_batches("test")
            ]
        assert sum(right) / data.sizes["test"] == result_of(run)["test_accuracy"]
        assert result_of(run)["density"] == (1 if "freezenet" in arguments[0] else 0.1)


# -- configuration --------------------
@pytest.mark.parametrize(
    "path",
    [
        path
        for group in ("method", "recipe", "allocation")
        for path in sorted((ROOT / "conf" / group).glob("*.yaml"))
    ],
    ids=lambda path: f"{path.parent.stem}-{path.stem}",
)
def test_a_configuration_lists_every_field_once(path: Path) -> None:
    keys = yaml.safe_load(path.read_text())
    target: Any = pkgutil.resolve_name(":".join(keys["_target_"].rsplit(".", 1)))
    fields = dataclasses.fields(target)
    assert keys.keys() - {"_target_", "defaults"} == {field.name for field in fields}


DEFAULT_OF_SEVERAL = {"ITOP": "itop_set", "MEST": "mest", "Recipe": "digits", "Interspace": "layer"}


@pytest.mark.parametrize("group", ["method", "recipe", "allocation", "basis"])
def test_python_has_the_defaults_of_the_configurations(group: str) -> None:
    """RigL() is what method=rigl is; of several files of a class, one has its defaults."""
    for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
        kind = (yaml.safe_load(path.read_text()) or {}).get("_target_", "").rpartition(".")[2]
        if kind and kind != "FromMask" and DEFAULT_OF_SEVERAL.get(kind, path.stem) == path.stem:
            key = "sparsity=0.9" if group == "method" else f"{group}={path.stem}"
            built = build(compose(f"{group}={path.stem}", key)[group], group)
            for name, value in vars(type(built)()).items():
                of_the_file = getattr(built, name)
                if isinstance(of_the_file, list):
                    of_the_file = tuple(of_the_file)
                assert of_the_file == value, (path.stem, name)


@pytest.mark.parametrize("method", ALONE)
def test_every_method_trains(method: str, train: Callable[..., Path]) -> None:
    model = SUITABLE.get(method, "lenet300")
    run = train(
        f"method={method}",
        f"model={model}",
        "sparsity=0.8",
        "recipe.steps=2",
        *QUICK.get(method, []),
    )
    result = result_of(run)
    assert result["method"] == method and result["steps"] >= 2 and 0 < result["density"] <= 1


MINE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    steps: int

    def run(self, net, train):
        train(0, self.steps)
"""


def test_a_method_of_the_user_needs_two_files(tmp_path: Path) -> None:
    (tmp_path / "a=b, c/method").mkdir(parents=True)
    (tmp_path / "a=b, c/method/mine.yaml").write_text("_target_: mine.Mine\nsteps: 2\n")
    (tmp_path / "mine.py").write_text(MINE)
    command = [SCRIPT, "train", "--config-dir", "a=b, c", "method=mine", "outputs=out"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert result_of(next(tmp_path.glob("out/runs/*/*/*")))["steps"] == 2


class Watched:
    """A data set that remembers the batches it gave."""

    def __init__(self, data: Data) -> None:
        self.data, self.seen = data, list[Tensor]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def train_shares(self, *args: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.data.train_shares(*args):
            self.seen.append(images)
            yield images, labels

    def feed(self, *args: Any, **kwargs: Any) -> Feed:
        return Feed(self, *args, **kwargs)  # type: ignore[arg-type]


def test_weights_and_batches_are_the_same_whatever_the_method() -> None:
    firsts: dict[str, tuple[dict[str, Tensor], list[Tensor]]] = {}
    for method in ALONE:
        model = SUITABLE.get(method, "lenet300")
        augmented = ("dataset.crop_padding=1", "dataset.flip=true")
        cfg = compose_method(method, f"model={model}", *augmented, "seed=5", "recipe.steps=2")
        cfg.merge_with_dotlist(QUICK.get(method, []))
        data: Any = Watched(build(cfg.dataset, "dataset"))
        net = build_net(cfg, data.shape, data.classes)
        state = {name: value.clone() for name, value in net.state_dict().items()}
        build(cfg.method, "method").run(
            net, Train(net, data, build(cfg.recipe, "recipe"), seed=cfg.seed)
        )
        first_state, first_batches = firsts.setdefault(model, (state, data.seen[:2]))
        assert all(torch.equal(first_state[name], value) for name, value in state.items())
        assert len(first_batches) == 2
        for one, other in zip(first_batches, data.seen[:2], strict=True):
            assert torch.equal(one, other), method
