"""Bad input is answered by one message that says what was got and what is allowed, and damages
nothing."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import DATA, Command, Outcome, result_of, steps_done, twin, until
from fixtures import FINISHED

from dimred.storage.tensors import read_tensors, write_tensors

SHORT = "recipe.steps=30"


def assert_answer(outcome: Outcome, *parts: str) -> None:
    """The command failed with one message, which has these parts."""
    code, _, err = outcome
    assert code == 1 and all(part in err for part in parts), err
    assert err.startswith("dimred: ") and "Traceback" not in err and "unexpected" not in err
    assert len(err.splitlines()) == 1, err


@pytest.mark.parametrize(
    "arguments, parts",
    [
        # names
        ("method=rigel", "unknown method 'rigel'. Did you mean 'rigl'|There are "),
        ("model=lenet30", "unknown model 'lenet30'. Did you mean 'lenet300'"),
        ("dataset=digts", "unknown dataset 'digts'. Did you mean 'digits'?"),
        ("allocation=erkk", "unknown allocation 'erkk'. Did you mean 'erk' or 'er'?"),
        ("recipe=cfar", "unknown recipe 'cfar'. Did you mean 'cifar' or 'cifar_fast'?"),
        ("model=3", "unknown model '3'. Allowed: "),
        ("recipe=0.1", "unknown recipe '0.1'. Allowed: cifar, "),
        ("tracker=true", "unknown tracker 'true'. Allowed: "),
        ("-m method=random,1", "unknown method '1'. Allowed: "),
        ("sparsty=0.3", "unknown key sparsty. Did you mean 'sparsity'?"),
        (
            "method=rigl method.every=3",
            "unknown key method.every. Did you mean 'update_every'? Allowed: allocation, "
            "drop_fraction, ",
        ),
        (
            "method=imp method.rate=0.3",
            "unknown key method.rate. Did you mean 'prune_rate'",
        ),
        (
            "method.update_every=3",
            "unknown key method.update_every. Allowed: ablation, allocation, augment, base, "
            "examples, sparsity.",
        ),
        ("epochs=3", "unknown key epochs. Did you mean recipe.epochs?"),
        ("learning_rate=3", "unknown key learning_rate. Did you mean recipe.lr?"),
        ("recipe.learning_rate=3", "unknown key recipe.learning_rate. Did you mean recipe.lr?"),
        ("recipe.wd=3", "unknown key recipe.wd. Did you mean recipe.weight_decay?"),
        ("method.lr=3", "unknown key method.lr. Did you mean recipe.lr?"),
        ("recipe.lrr=3", "unknown key recipe.lrr. Did you mean 'lr'?"),
        ("recipe.lr.x=3", "unknown key recipe.lr.x: recipe.lr is a single value"),
        ("recipe.milestones.x=3", "there is no key 'x' in a list. Write the whole list"),
        ("+foo=1", "unknown key foo. Allowed: "),
        ("experiment=rigl_wrn22_2", "experiment takes a plus: +experiment=NAME"),
        ("tracker=[tensorboard,foo]", "unknown tracker 'foo'. Allowed: mlflow, none, tensorb"),
        ("hydra.run.dir=x", "hydra.run.dir=x is not allowed: dimred names|outputs=DIR"),
        ("hydra.run={dir:x}", "hydra.run={dir:x} is not allowed: dimred names"),
        ("hydra={run:{dir:x}}", "hydra={run:{dir:x}} is not allowed: dimred names"),
        ("hydra.job.chdir=true", "hydra.job.chdir=true is not allowed: dimred names"),
        ("-m hydra.sweep.subdir=x seed=0", "hydra.sweep.subdir=x is not allowed: dimred names"),
        ("hydra.sweep.dir=x", "a sweep needs -m|hydra.sweep.dir=x is not used"),
        ("method={}", "method={} is not allowed|method=NAME"),
        ("recipe.milestones.9=0.2", "the list has no such entry|recipe.milestones=[A,B]"),
        ("tracker=null", "tracker=null is not allowed|Write tracker=none"),
        ("objective=foo", "unknown objective 'foo'. Allowed: "),
        ("objective=null", "unknown objective 'null'. Allowed: "),
        ("objective=[1,val_accuracy]", "unknown objective '1'. Allowed: "),
        ("objective=[val_accuracy,foo]", "unknown objective 'foo'. Allowed: "),
        ("-m objective=foo seed=0,1", "unknown objective 'foo'. Allowed: "),
        ("-m hydra/sweeper=optuna objective=foo seed=0,1", "unknown objective 'foo'. Allowed: "),
        ("-m hydra/sweeper=optuna seed=0,1", "the sweeper would look for the lowest val_accuracy"),
        (
            "+method.foo=1",
            "unknown key method.foo. Allowed: ablation, allocation, augment, base, "
            "examples, sparsity.",
        ),
        ("+model.foo=1", "unknown key model.foo. Allowed: init, pretrained."),
        ("+allocation.foo=1", "unknown key allocation.foo. Allowed: none."),
        ("+sparsity=0.5", "Leave out the +"),
        ("+dataset=mnist", "Leave out the +"),
        ("~sparsity", "sparsity is missing"),
        ("~method", "method is missing"),
        ("~recipe.lr", "recipe.lr is missing"),
        ("device=${nowhere}", "'nowhere' not found, in device"),
        ("dataset=imagefolder", "dataset.path has no value of its own. Give it one: dataset.path="),
        (
            "method._target_=my.Method",
            "is not allowed: a run is named by its files|_target_: my.Method|--config-dir",
        ),
        # what Hydra's grammar and options ask for
        ("dataset.path=a=b", "two kinds of quotes: 'dataset.path=\"a=b\"'"),
        ("dataset.path=数据", "two kinds of quotes: 'dataset.path=\"数据\"'"),
        ("dataset.path=a[b]", "two kinds of quotes: 'dataset.path=\"a[b]\"'"),
        (
            "dataset=imagefolder dataset.path=a,b",
            "names several values|in two kinds of quotes, 'dataset.path=\"a,b\"'",
        ),
        ("-m --cfg job seed=0,1", "Leave out -m"),
        ("--config-path conf", "--config-dir DIR|dimred train --from RUN"),
        ("hydra/launcher=slurm", "a launcher needs -m|dimred train -m hydra/launcher=slurm ..."),
        ("hydra.launcher.n_jobs=2", "a launcher needs -m|hydra.launcher.n_jobs=2 is not used"),
        ("hydra/sweeper=optuna", "a sweeper needs -m"),
        ("-m hydra/launcher=submitit_slurm seed=0", "pip install hydra-submitit-launcher"),
        ("-m hydra/launcher=rq seed=0", "pip install hydra-rq-launcher"),
        ("-m hydra/launcher=ray seed=0", "pip install hydra-ray-launcher"),
        ("-m hydra/sweeper=nevergrad seed=0", "pip install hydra-nevergrad-sweeper"),
        ("-m hydra/sweeper=ax seed=0", "pip install hydra-ax-sweeper"),
        (
            "-m hydra.sweeper.params={seed:0}",
            "Type the values of a sweep by their own keys: -m KEY=A,B",
        ),
        ("-m hydra/launcher=jolib seed=0", "unknown hydra/launcher 'jolib'. Did you mean 'joblib'"),
        (
            "-m hydra/launcher=packed hydra.launcher.n_jobs=0 seed=0",
            "hydra.launcher.n_jobs=0 is not allowed. It must be a whole number, 1 or more, or null",
        ),
        ("--from nowhere", "nowhere is no run"),
        # two ways to say one thing
        ("method.sparsity=0.5", "method.sparsity=0.5 is not allowed|Write sparsity=0.5"),
        ("-m method.sparsity=0.5,0.8", "Write sparsity=0.5,0.8"),
        ("method.allocation=erk", "Write allocation=erk"),
        ("method.allocation._target_=dimred.select.allocations.ERK", "Choose one, allocation=NAME"),
        ("method.allocation.power=2", "Write allocation.power=2"),
        ("+allocation@method.allocation=erk", "Write allocation=erk"),
        ("method=[rigl]", "It must be the plain name of one file: method=rigl"),
        ("method=[rigl,snip]", "the plain name of one file: method=rigl"),
        ("method=rigl.yaml", "the plain name of one file: method=rigl"),
        ("model=../model/lenet300", "the plain name of one file: model=lenet300"),
        ("method=null", "the plain name of one file: method=NAME"),
        ("+model.shape=[1,8,8]", "unknown key model.shape. Allowed: init, pretrained."),
        ("model.init=kaiming", "model.init='kaiming'. Did you mean 'kaiming_normal'"),
        # values
        ("sparsity=0.5,0.6", "names several values|add -m: dimred train -m sparsity=0.5,0.6"),
        ("sparsity", "cannot understand 'sparsity'. Write KEY=VALUE"),
        ("sparsity=abc", "sparsity=abc is not allowed. It must be a number in [0, 1)."),
        ("sparsity=1", "sparsity=1 is not allowed. It must be a number in [0, 1)"),
        ("sparsity=-0.1", "sparsity=-0.1 is not allowed"),
        ("sparsity=nan", "sparsity=nan is not allowed"),
        ("sparsity=0.99999", "leaves 1 of 50200 weights for 3 layers. Choose at most 0.999940"),
        ("seed=-1", "seed=-1 is not allowed"),
        ("method.examples=2.5", "method.examples=2.5 is not allowed. It must be a whole number"),
        (
            "allocation=erk allocation.power=high",
            "allocation.power=high is not allowed. It must be a finite number",
        ),
        ("seed=1.5", "seed=1.5 is not allowed. It must be a whole number"),
        ("recipe.lr=fast", "recipe.lr=fast is not allowed. It must be a number above 0."),
        ("recipe.epochs=inf", "recipe.epochs=inf is not allowed. It must be a number above 0."),
        (
            "recipe.optimizer=sdg",
            "recipe.optimizer=sdg is not allowed. It must be sgd or adam or adamw.",
        ),
        ("recipe.milestones=0.5", "recipe.milestones=0.5 is not allowed. It must be a list"),
        (
            "recipe.steps=0",
            "recipe.steps=0 is not allowed. It must be null or a whole number, 1 or more.",
        ),
        (
            "recipe.batch_size=2000",
            "batch size of 2000; digits has 1294 training examples|Choose a smaller batch",
        ),
        (
            "method.examples={a:1}",
            "method.examples={'a': 1} is not allowed. It must be a whole number, 1 or more.",
        ),
        (
            "method.examples=2000",
            "sample of 2000 training examples; digits has 1294|Choose method.examples=1294",
        ),
        (
            "method=cops method.maximise=snap",
            "method.maximise=snap is not allowed. It must be snip or grasp or crop",
        ),
        (
            "method=cops method.subject_to=[snap]",
            "method.subject_to=['snap'] is not allowed|each snip or grasp or crop",
        ),
        (
            "method=imp method.rewind_step=1000000000",
            "cannot train from step 0 to 1000000000: training has 30 steps",
        ),
        (
            "method=imp method.prune_rate=1e-9",
            "reaches sparsity=0.9 in 2302585092 rounds|1000 are allowed|0.0025 is enough",
        ),
        (
            "dataset.val_fraction=0.9999",
            "dataset.val_fraction=0.9999 holds out every training example (1438)",
        ),
        ("checkpoint_seconds=-1", "checkpoint_seconds=-1 is not allowed"),
        ("device=gpu", "device=gpu is not allowed. It must be one of auto, cpu"),
        ("device=cuda:99", "device=cuda:99 is not allowed. It must be one of auto, cpu"),
        # what does not fit together
        ("include=fc1", "include=fc1 is not allowed. It must be a list"),
        (
            "include=[fc9.weight]",
            "include: 'fc9.weight' matches no parameter. Did you mean 'fc3.weight'",
        ),
        ("exclude=[conv]", "exclude: 'conv' matches no parameter. Allowed: fc1.bias, "),
        ("exclude=['fc(']", "exclude: 'fc(' is not a regular expression"),
        ("exclude=[fc]", "no weight is covered"),
        (
            "model=lenet5",
            "lenet5 needs images of at least 16x16 pixels, got 8x8. Set dataset.resize=16",
        ),
        (
            "dataset=brackets model=text_transformer recipe.augment=randaugment",
            "brackets cannot be augmented: its inputs are no images. Set recipe.augment=none",
        ),
        (
            "method=norm_only",
            "norm_only trains normalisation layers, and Sequential has none|model=resnet20",
        ),
        (
            "recipe.lr=1e10",
            "the loss became nan at step 2 of 30, at learning rate 1e+10 (losses before it: "
            "2.3|recipe.lr",
        ),
    ],
)
def test_mistakes_are_answered(
    arguments: str, parts: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = dimred("train", SHORT, f"outputs={tmp_path / 'outputs'}", *arguments.split())
    assert_answer(outcome, *parts.split("|"))
    for path in tmp_path.glob("outputs/runs/*/*/*/result.json"):
        assert (
            result_of(path.parent)["status"] == "failed"
            and result_of(path.parent)["reason"] in outcome.err
        )


@pytest.mark.parametrize("mistake", ["include=[foo]", "recipe.batch_size=5000", "device=tpu"])
def test_a_mistake_found_before_training_leaves_no_folder_of_a_run(
    mistake: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    assert_answer(dimred("train", SHORT, f"outputs={tmp_path}", mistake))
    assert not list(tmp_path.glob("runs/*/*/*"))


@pytest.mark.parametrize(
    "arguments",
    [
        "show nowhere",
        "show",
        "show --jsn .",
        "export",
        "export nowhere x",
        "trian",
        "methods --jsno",
        "train --config-dir nowhere",
    ],
)
def test_mistakes_in_other_commands_are_answered(
    arguments: str, dimred: Callable[..., Outcome]
) -> None:
    assert_answer(dimred(*arguments.split()))


def test_the_values_of_options_are_named(dimred: Callable[..., Outcome], tmp_path: Path) -> None:
    assert_answer(dimred("table", "my4.yaml"), "There is no file my4.yaml. Correct the path")
    negative = dimred("data", "prepare", str(tmp_path), str(tmp_path / "to"), "--jobs", "-1")
    assert_answer(negative, "--jobs=-1 is not allowed. It must be from 0")
    twice = dimred("status", str(tmp_path), "--runs", str(tmp_path))
    assert_answer(twice, f"give one folder: {tmp_path}, or --runs {tmp_path}")
    assert dimred("status", "--runs", str(tmp_path)).code == 0


def test_debug_shows_a_traceback(dimred: Callable[..., Outcome]) -> None:
    code, _, err = dimred("train", "--debug", "method=rigel")
    assert code == 1 and "Traceback" in err and "Did you mean 'rigl'" in err


@pytest.mark.skipif(
    os.path.exists("/dev/nvidia0"), reason="has a GPU, so that device=cuda is no mistake"
)
def test_a_missing_device_is_named(dimred: Callable[..., Outcome], tmp_path: Path) -> None:
    assert_answer(
        dimred("train", "device=cuda", f"outputs={tmp_path}"),
        "one of auto, cpu (what this machine has)",
    )


def test_an_unknown_device_is_refused_although_the_run_is_finished(
    dimred: Callable[..., Outcome], finished: Path
) -> None:
    outcome = dimred("train", FINISHED, f"outputs={finished.parents[3]}", "device=tpu")
    assert_answer(outcome, "device=tpu", "one of auto, cpu")


def offline() -> None:
    for key in ("http_proxy", "https_proxy"):
        os.environ[key] = os.environ[key.upper()] = "http://127.0.0.1:9"


def test_missing_data_offline_says_where_to_put_it(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = dimred(
        "train", "dataset=mnist", f"data_dir={tmp_path}", f"outputs={tmp_path}", before=offline
    )
    assert_answer(
        outcome,
        f"MNIST is read from train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, "
        f"t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz in {tmp_path}/MNIST/raw: put them",
    )


@pytest.mark.parametrize(
    "arguments, part",
    [
        ("dataset=npz dataset.path=nope.npz", "There is no nope.npz. Correct the path"),
        ("dataset=text dataset.path=nope", "There is no nope. Correct the path"),
        ("dataset=text dataset.path={text}/nope", "There is no {text}/nope. Correct the path"),
        ("dataset=npz dataset.path={folder}", "{folder} is a folder, and a file is expected"),
        ("dataset=npz dataset.path={text}", "other things than arrays of numbers"),
    ],
)
def test_a_path_is_missing_or_of_another_kind_rather_than_damaged(
    arguments: str, part: str, dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    text = tmp_path / "x.npz"
    text.write_text("no arrays")
    places = {"folder": str(tmp_path), "text": str(text)}
    outcome = dimred("train", f"outputs={tmp_path}", *arguments.format(**places).split())
    assert_answer(outcome, part.format(**places))
    damaged = arguments.endswith("{text}")
    assert "pickle" not in outcome.err and ("Delete it" in outcome.err) == damaged


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_data_is_named(damage: str, dimred: Callable[..., Outcome], tmp_path: Path) -> None:
    if not (DATA / "MNIST").exists():
        pytest.skip(f"no MNIST in {DATA}; set DIMRED_DATA to the folder that has it")
    shutil.copytree(DATA / "MNIST", tmp_path / "MNIST")
    path = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[5000] ^= 1
    path.write_bytes(path.read_bytes()[:1000] if damage == "cut" else gzip.compress(content))
    assert_answer(
        dimred("train", "dataset=mnist", SHORT, f"data_dir={tmp_path}", f"outputs={tmp_path}"),
        "t10k-labels-idx1-ubyte.gz is damaged",
        "replace it by a good copy",
    )


# -- the machine --------------------
def bounded(kind: int, spare: int) -> None:
    """Let this process have only so many bytes, of its memory more than it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = spare + used * (kind == resource.RLIMIT_AS)
    resource.setrlimit(kind, (limit, limit))


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="memory can be limited on Linux only"
)
def test_too_little_memory_is_reported_and_the_run_has_failed(
    dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = dimred(
        "train",
        "model=conv6",
        "dataset.resize=64",
        "recipe.batch_size=1294",
        f"outputs={tmp_path}",
        before=partial(bounded, resource.RLIMIT_AS, 600_000_000),
    )
    assert_answer(outcome, "out of memory", "recipe.batch_size")
    assert result_of(next(tmp_path.glob("runs/*/*/*")))["status"] == "failed"


def test_a_full_disk_is_reported_and_the_next_attempt_succeeds(
    dimred: Callable[..., Outcome], train: Callable[..., Path], tmp_path: Path
) -> None:
    command = ("train", SHORT, "checkpoint_seconds=0", f"outputs={tmp_path / 'outputs'}")
    full = partial(
        bounded, resource.RLIMIT_FSIZE, 20_000
    )  # of a file: a checkpoint has more, the others less
    assert_answer(
        dimred(*command, before=full), "last.safetensors (File too large)", "make room", "outputs="
    )
    run = next(tmp_path.glob("outputs/runs/*/*/*"))
    assert result_of(run)["status"] == "failed" and not list(run.glob("checkpoint/*"))
    assert train(SHORT) == run and result_of(run)["status"] == "done"


@pytest.mark.parametrize("outputs", ["{tmp_path}/file", "{tmp_path}/file/inside", "/proc/nowhere"])
@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0,1")])
def test_unwritable_outputs_are_reported(
    outputs: str, sweep: tuple[str, ...], dimred: Callable[..., Outcome], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_answer(
        dimred("train", SHORT, f"outputs={outputs.format(tmp_path=tmp_path)}", *sweep),
        "outputs=...",
    )


# -- damaged files of a run --------------------
def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -len(path.read_bytes()) // 3])


def flip(path: Path, at: float = 0.6) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def flip_the_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(
        content.replace(b'phase\\": 2', b'phase\\": 3').replace(
            b'classes\\": 10', b'classes\\": 11'
        )
    )


@pytest.mark.parametrize("damage", [cut, flip, flip_the_header])
def test_a_damaged_checkpoint_is_refused_and_removing_it_starts_over(
    damage: Callable[[Path], None],
    start: Callable[..., Command],
    dimred: Callable[..., Outcome],
    train: Callable[..., Path],
    tmp_path: Path,
) -> None:
    command = (
        "method=imp",
        "method.prune_rate=0.5",
        "method.rewind_step=3",
        SHORT,
        "checkpoint_seconds=0",
    )
    whole = train(*command, outputs=tmp_path / "whole")
    run, process = twin(whole, tmp_path), start("train", *command, f"outputs={tmp_path}").process
    until(lambda: steps_done(run) > 5)
    process.kill()
    process.join()
    for name in ("last", "snapshot-1"):
        path = run / "checkpoint" / f"{name}.safetensors"
        content = path.read_bytes()
        damage(path)
        if content != path.read_bytes():
            assert_answer(
                dimred("train", *command, f"outputs={tmp_path}"),
                f"{path} is damaged",
                f"Remove {path.parent} ",
            )
        path.write_bytes(content)
    shutil.rmtree(run / "checkpoint")
    assert (
        result_of(train(*command, outputs=tmp_path))["test_loss"] == result_of(whole)["test_loss"]
    )


@pytest.mark.parametrize("damage", [cut, flip, flip_the_header])
def test_a_damaged_model_is_not_exported(
    damage: Callable[[Path], None],
    dimred: Callable[..., Outcome],
    finished: Path,
    tmp_path: Path,
) -> None:
    damage(finished / "model.safetensors")
    outcome = dimred("export", str(finished), str(tmp_path / "exported"))
    assert_answer(outcome, "model.safetensors is damaged", f"Remove {finished} ")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    "content", ["", '{"status": "do', "[]", "null", "\x00\x01", '{"status": "dune"}']
)
def test_a_damaged_result_is_reported_by_train_and_show(
    content: str, dimred: Callable[..., Outcome], train: Callable[..., Path], finished: Path
) -> None:
    run = finished
    (run / "result.json").write_text(content)
    before = {path: path.read_bytes() for path in run.glob("[!.]*")}
    assert_answer(
        dimred("train", FINISHED, f"outputs={run.parents[3]}"),
        f"{run}/result.json is damaged",
        "Remove",
    )
    if "dune" not in content:
        assert_answer(dimred("show", str(run)), f"{run} is damaged", "Remove")
    assert before == {path: path.read_bytes() for path in run.glob("[!.]*")}
    (run / "result.json").unlink()
    assert train(FINISHED) == run


def test_a_damaged_config_is_reported_and_nothing_depends_on_it(
    dimred: Callable[..., Outcome], finished: Path, tmp_path: Path
) -> None:
    run = finished
    (run / "config.yaml").write_bytes(b"\xff\xfe\x00")
    assert_answer(dimred("show", str(run)), f"{run} is damaged")
    assert dimred("export", str(run), str(tmp_path / "exported")).code == 0
    assert json.loads(dimred("show", "--json", str(run)).out)["status"] == "done"
    again = dimred("train", FINISHED, f"outputs={run.parents[3]}")
    assert f"finished already: {run}" in again.err


def test_a_model_file_does_not_decide_which_code_is_run(
    dimred: Callable[..., Outcome], finished: Path, tmp_path: Path
) -> None:
    run = finished
    state, about = read_tensors(run / "model.safetensors")
    model = about["config"]["model"]
    for target in ("os.mkdir", "dimred.models.pretrained.read"):
        about["config"]["model"] = {"_target_": target, "path": str(tmp_path / "made")}
        write_tensors(run / "model.safetensors", state, about)
        outcome = dimred("export", str(run), str(tmp_path / "exported"))
        assert_answer(
            outcome, f"asks for code that is not dimred's: {target}", "If you trust it, add --trust"
        )
    about["config"] |= {
        "model": model | {"init": "${recipe}"},
        "recipe": {"_target_": "os.mkdir", "path": "made"},
    }
    write_tensors(run / "model.safetensors", state, about)
    outcome = dimred("export", str(run), str(tmp_path / "exported"))
    assert_answer(outcome, "asks for code that is not dimred's: ${recipe}")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("shape"),
        lambda about: about["config"].pop("include"),
        lambda about: about.pop("config"),
        lambda about: about["config"]["model"].pop("init"),
        lambda about: about["config"]["model"].update(foo=1),
        lambda about: about.update(classes=7),
    ],
)
def test_a_run_of_another_version_is_named_with_what_to_do(
    change: Callable[[Any], object],
    dimred: Callable[..., Outcome],
    finished: Path,
    tmp_path: Path,
) -> None:
    run = finished
    state, about = read_tensors(run / "model.safetensors")
    change(about)
    write_tensors(run / "model.safetensors", state, about)
    outcome = dimred("export", str(run), str(tmp_path / "exported"))
    assert_answer(
        outcome,
        f"{run}/model.safetensors",
        *(
            ["does not describe a network of this dimred", "by dimred 0."]
            if "config" in about
            else ["was not written by a run"]
        ),
    )
