"""Trains random configurations: method, model, allocation, cover, basis and recipe are drawn.

A drawn configuration either trains, and then its files and exports must agree (counts, masks,
exported and imported weights, logits, accuracy), or it is refused with one sentence before
training. Anything else is a failure, printed with the command that repeats it.
"""

from __future__ import annotations

import argparse
import collections
import logging
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file

from dimred.cli import export, importing
from dimred.conformance import EXCEPTIONS
from dimred.errors import UserError
from dimred.runs.build import build, build_model
from dimred.runs.config.composition import composed
from dimred.runs.config.files import GROUPS, names
from dimred.runs.environment import prepare_process
from dimred.runs.failures import readable
from dimred.runs.nets import load_run
from dimred.runs.run import run

#: models that train in a second, with the settings that make them small, and what they need of
#: images
MODELS = {
    "lenet300": [],
    "mlp": ["model.hidden=[24,12]"],
    "mlp ": ["model.hidden=[40]"],
    "lenet": ["dataset.resize=16"],
    "lenet5": ["dataset.resize=16"],
    "conv2": [],
    "conv4": [],
    "resnet20": ["model.width=0.5"],
    "resnet20 ": ["model.width=0.5", "model.shortcut=pad"],
    "mobilenet": ["model.width=0.125"],
    "vgg11": ["dataset.resize=32"],
    "vit": [],
}
COVERS = [
    [],
    [],
    [],
    ["exclude=[bias]"],
    ["include=[weight]"],
    ["include=[.*]"],
    ["exclude=['(fc|fc3|head)[.]weight']"],
]
SPARSITIES = ["0", "0.3", "0.5", "0.8", "0.9", "0.95", "0.98", "0.99"]


class Drawn(NamedTuple):
    """One configuration, as overrides."""

    choices: dict[str, str]
    settings: list[str]

    def command(self) -> str:
        chosen = [f"{group}={name}" for group, name in self.choices.items()]
        return " ".join(["dimred train", *chosen, *self.settings])


def draw(draws: random.Random) -> Drawn:
    def now_and_then(share: float, *settings: str) -> list[str]:
        return [draws.choice(settings)] if draws.random() < share else []

    model = draws.choice(list(MODELS))
    choices = {
        "method": draws.choice([name for name in names("method") if name != "from_mask"]),
        "model": model.strip(),
        "dataset": "digits",
        "recipe": "digits",
    }
    if draws.random() < 0.3:
        choices["allocation"] = draws.choice(names("allocation"))
    if draws.random() < 0.15:
        choices["basis"] = draws.choice(names("basis"))
    batch = draws.choice([32, 64, 128])
    settings = [
        *MODELS[model],
        f"sparsity={draws.choice(SPARSITIES)}",
        f"seed={draws.randrange(5)}",
        *draws.choice(COVERS),
        f"recipe.steps={draws.choice([1, 3, 12, 25, 40])}",
        f"recipe.batch_size={batch}",
        f"recipe.lr={draws.choice([0.003, 0.01, 0.03])}",
        *now_and_then(0.3, "recipe.optimizer=adam", "recipe.optimizer=adamw"),
        *now_and_then(0.2, "recipe.momentum=0", "recipe.nesterov=true"),
        *now_and_then(0.3, "recipe.schedule=cosine", "recipe.schedule=constant"),
        *now_and_then(0.2, "recipe.bf16=true"),
        *now_and_then(0.3, "recipe.channels_last=false"),
        *now_and_then(0.2, "recipe.clip=1"),
        *now_and_then(0.2, "recipe.label_smoothing=0.1"),
        *now_and_then(0.2, "recipe.warmup=0.2"),
        *now_and_then(0.2, "dataset.val_fraction=0"),
        *now_and_then(0.2, "dataset.crop_padding=1"),
        *now_and_then(0.15, "recipe.schedule=polynomial", "recipe.schedule=cyclic"),
        *now_and_then(0.15, "recipe.accumulate=2", "recipe.accumulate=5"),
        *now_and_then(0.15, "recipe.ema=0.9"),
        *now_and_then(0.1, "recipe.fp16=true"),
        *now_and_then(0.15, "recipe.mixup=0.4", "recipe.cutmix=1"),
        *now_and_then(0.15, "recipe.augment=trivialaugment", "recipe.erasing=0.25"),
    ]
    return Drawn(choices, settings)


def configuration(drawn: Drawn, outputs: Path) -> DictConfig:
    chosen = [f"{group}={name}" for group, name in drawn.choices.items()]
    return composed([*chosen, *drawn.settings, "device=cpu", f"outputs={outputs}"])


def examine(drawn: Drawn, outputs: Path) -> str:
    """Train and compare; "trained" or "refused". AssertionError if anything disagrees."""
    try:
        cfg = configuration(drawn, outputs)
        choices = {group: drawn.choices.get(group, "none") for group in GROUPS}
        result = run(cfg, choices)
    except UserError as error:
        assert not str(error).startswith("unexpected"), str(error)
        return f"refused: {str(error)[:70]}"
    except Exception as exception:
        raise AssertionError(str(readable(exception))) from exception
    folder = Path(result["folder"])
    check_counts(drawn, cfg, result, folder)
    check_exports(cfg, result, folder)
    assert run(cfg, choices) == result, "a finished run is run again"
    return "trained"


def check_counts(drawn: Drawn, cfg: DictConfig, result: dict[str, Any], folder: Path) -> None:
    layers, total = result["layers"], result["total"]
    with np.load(folder / "masks.npz") as masks:
        for name, layer in layers.items():
            assert list(masks[name].shape) == layer["shape"], f"{name}: {masks[name].shape}"
            # weights that were frozen after training count, and are not in the mask
            frozen = layer["trained"] - int(masks[name].sum())
            assert frozen >= 0 or not result["trained_ever"], f"{name}: mask and count differ"
    assert sum(layer["total"] for layer in layers.values()) == total
    for name, layer in layers.items():
        assert (
            0 <= layer["trained"] <= layer["total"] and 0 <= layer["nonzero"] <= layer["total"]
        ), name
    nonzero = sum(layer["nonzero"] for layer in layers.values())
    assert abs(result["density"] - nonzero / total) < 1e-12, "density"
    assert result["training_flops"] > 0 and result["inference_flops"] >= 0
    budget = round((1 - cfg.sparsity) * total)
    exact = drawn.choices["method"] not in EXCEPTIONS["exact_count"] and "sparsity" in cfg.method
    if exact and not cfg.get("basis"):
        kept = max(nonzero, sum(layer["trained"] for layer in layers.values()))
        assert kept <= budget or untouched(drawn, result), f"{kept} weights of a budget of {budget}"


def untouched(drawn: Drawn, result: dict[str, Any]) -> bool:
    """Whether the method's untrained weights keep their initial values."""
    trained = sum(layer["trained"] for layer in result["layers"].values())
    return trained <= round((1 - result["sparsity"]) * result["total"])


def check_exports(cfg: DictConfig, result: dict[str, Any], folder: Path) -> None:
    dense, compact, again = (
        folder.parent / f"{folder.name}.{end}" for end in ("st", "dimred", "st2")
    )
    with silence():
        assert export.run([str(folder), str(dense)]) == 0
        assert export.run([str(folder), str(compact), "--format", "compact"]) == 0
        assert importing.run([str(compact), str(again)]) == 0
    assert compact.stat().st_size == result["compact_file_bytes"], "compact_file_bytes"
    one, other = load_file(dense), load_file(again)
    assert one.keys() == other.keys(), "exported and imported names differ"
    for name, value in one.items():
        assert torch.equal(value, other[name]), f"{name} differs after export and import"
    net, about = load_run(folder)
    with np.load(folder / "masks.npz") as masks:
        for name, w in net.weights.items():
            same = np.array_equal(w.trained().numpy(), masks[name].reshape(-1))
            assert same, f"{name}: the loaded net has another mask"
    model = build_model(about["model"], tuple(about["shape"]), about["classes"], cfg.seed)
    state = model.state_dict()  # has the versions of modules, which the file has not
    state.update(one)
    model.load_state_dict(state)
    model.eval()
    net.train(False)
    images = torch.rand(16, *about["shape"], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(model(images), net(images), atol=1e-5), "logits differ"
    check_accuracy(cfg, result, model)


@torch.no_grad()
def check_accuracy(cfg: DictConfig, result: dict[str, Any], model: torch.nn.Module) -> None:
    """The plain model has the accuracy that the result reports, but for examples on the border."""
    if cfg.recipe.bf16:
        return
    data = build(cfg.dataset, "dataset").to(torch.device("cpu"))
    right = [int((model(x).argmax(1) == y).sum()) for x, y in data.eval_batches("test")]
    accuracy = sum(right) / data.sizes["test"]
    said = result["test_accuracy"]
    assert abs(accuracy - said) < 0.006, f"accuracy {accuracy} instead of {said}"


class silence:
    """Suppress the output of commands."""

    def __enter__(self) -> None:
        self.stdout, sys.stdout = sys.stdout, open("/dev/null", "w")

    def __exit__(self, *exc: object) -> None:
        sys.stdout.close()
        sys.stdout = self.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    options = parser.parse_args()
    prepare_process()
    torch.set_num_threads(1)
    logging.getLogger("dimred").setLevel(logging.CRITICAL)
    outcomes, failures, start = collections.Counter(), [], time.monotonic()
    for i in range(options.count):
        drawn = draw(random.Random(f"{options.seed}/{i}"))
        outputs = Path(tempfile.mkdtemp())
        try:
            outcome = examine(drawn, outputs)
        except AssertionError as error:
            failures.append(f"{drawn.command()}\n    {error}")
            outcome = f"FAILED: {error}"
        finally:
            shutil.rmtree(outputs)
        outcomes[outcome.partition(":")[0]] += 1
        print(
            f"{i:4} {drawn.choices['method']:26} {drawn.choices['model']:10} {outcome}", flush=True
        )
    print(f"\n{dict(outcomes)} in {time.monotonic() - start:.0f} s")
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
