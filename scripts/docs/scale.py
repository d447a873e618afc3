"""What the shipped tables cost on 1, 8 and 64 GPUs: the table of docs/scale.md.

A run trains on epochs x examples x rounds images; a GPU trains on so many a second as was measured
on an H100 (docs/gpu.md), for a model that was not measured so many as its FLOPs ask for at the rate
of its kin. Runs are independent, so N GPUs take an N-th of the time, and no less than the longest
run. Nothing else is counted: neither scoring nor the start of a run.

    scripts/scale [--price PER_GPU_HOUR]     the table; --write: into the page
    scripts/scale --check DIR                predict the seconds of finished runs, and compare
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from dimred import models
from dimred.net import Net
from dimred.report.runs import find_runs
from dimred.report.tables.plan import Job, left
from dimred.report.tables.published import read_table
from dimred.runs.config.files import names
from dimred.training.flops import Costs

PAGE = Path(__file__).parents[2] / "docs/scale.md"
BEGIN, END = "<!-- scripts/scale writes this table -->\n", "<!-- end -->\n"


class Images(NamedTuple):
    shape: tuple[int, int, int]
    classes: int
    train: int


DATA = {
    "Digits": Images((1, 8, 8), 10, 1438),
    "MNIST": Images((1, 28, 28), 10, 60_000),
    "CIFAR10": Images((3, 32, 32), 10, 50_000),
    "CIFAR100": Images((3, 32, 32), 100, 50_000),
    "TinyImageNet": Images((3, 64, 64), 200, 100_000),
}

#: images a second of whole captured trainings on an H100 (fp32 as TF32, bf16), of docs/gpu.md; of
#: WRN-28-2 only steps were measured
MEASURED = {
    "lenet300": (477_000, 562_000),
    "resnet20": (33_900, 43_200),
    "vgg16": (33_400, 45_100),
    "wrn28_2": (128 / 4.92e-3, 128 / 3.28e-3),
}
#: a model that was not measured is taken for as fast, by FLOPs, as this one
KIN = {
    ("resnet", 1): "resnet20",
    ("resnet", 2): "wrn28_2",
    ("wide_resnet", 2): "wrn28_2",
    ("resnet18", 1): "vgg16",
    ("vgg", None): "vgg16",
}
#: too small for a GPU: their steps take as long as those of LeNet-300-100
SMALL = ("lenet300", "lenet5", "lenet", "mlp")
OF_KIN: Mapping[str, tuple[dict[str, Any], str]] = {
    "resnet20": ({"_target_": "resnet", "depth": 20, "width": 1, "shortcut": "conv"}, "CIFAR10"),
    "wrn28_2": ({"_target_": "wide_resnet", "depth": 28, "width": 2}, "CIFAR10"),
    "vgg16": ({"_target_": "vgg", "depth": 16}, "CIFAR10"),
}


# -- a run --------------------
def rounds(method: Mapping[str, Any]) -> int:
    """How many trainings a method consists of."""
    if method["_target_"] == "IMP":
        left_in_a_round = 1 - method["prune_rate"]
        if left_in_a_round <= 0:
            return 2
        return 1 + math.ceil(math.log(1 - method["sparsity"]) / math.log(left_in_a_round))
    if method["_target_"] == "ContinuousSparsification":
        return int(method["rounds"]) + 1
    return 2 if method["_target_"] == "RareGems" else 1


def images(description: Mapping[str, Any]) -> float:
    """How many images a run trains on, in all rounds."""
    recipe, data = description["recipe"], description["dataset"]
    train = DATA[data["_target_"]].train * (1 - data.get("val_fraction", 0.0))
    steps = recipe["steps"] or recipe["epochs"] * (train // recipe["batch_size"])
    return float(steps * recipe["batch_size"] * rounds(description["method"]))


def flops(model: Mapping[str, Any], data: str) -> int:
    """FLOPs of dense training for one image, forward and backward."""
    return _flops(json.dumps(model, sort_keys=True), data)


@cache
def _flops(model: str, data: str) -> int:
    about, fields = DATA[data], json.loads(model)
    build = getattr(models, fields.pop("_target_"))
    fields |= {"shape": about.shape, "classes": about.classes, "pretrained": None}
    takes = inspect.signature(build).parameters
    given = {"init": "kaiming_normal", "shortcut": "conv"} | fields
    net = Net(build(**{key: value for key, value in given.items() if key in takes}), initial=dict)
    return Costs(net, about.shape).dense_step


def rate(description: Mapping[str, Any]) -> tuple[float, str] | None:
    """Images a second on one GPU, and the model that this was measured with; None if unknown."""
    model, data = description["model"], description["dataset"]["_target_"]
    target, half = model["_target_"], bool(description["recipe"]["bf16"])
    if data not in DATA:
        return None
    if target in SMALL:
        return MEASURED["lenet300"][half], "lenet300"
    kin = KIN.get((target, model.get("width")))
    if kin is None:
        return None
    known, of = OF_KIN[kin]
    return MEASURED[kin][half] * flops(known, of) / flops(model, data), kin


# -- a table --------------------
class Row(NamedTuple):
    """Of the runs of a table whose time is known."""

    name: str
    runs: int
    unknown: int
    images: float
    flops: float
    hours: float
    longest: float  # hours of the longest run
    kin: str


def row(name: str, jobs: Iterable[Job]) -> Row:
    hours, counts, unknown, seen, work, kins = list[float](), 0, 0, 0.0, 0.0, set[str]()
    for job in jobs:
        counts += 1
        if (known := rate(job.wanted)) is None:
            unknown += 1
            continue
        many = images(job.wanted)
        seen += many
        work += many * flops(job.wanted["model"], job.wanted["dataset"]["_target_"])
        hours.append(many / known[0] / 3600)
        kins.add(known[1])
    return Row(
        name,
        counts,
        unknown,
        seen,
        work,
        sum(hours),
        max(hours, default=0),
        ", ".join(sorted(kins)),
    )


def line(row: Row, price: float | None) -> str:
    known = row.runs - row.unknown
    cells = [row.name, f"{known} of {row.runs}"]
    if not known:
        return "| " + " | ".join([*cells, *["not known"] * (6 + (price is not None))]) + " |"
    cells += [f"{row.images / 1e6:,.0f} M", f"{row.flops:.1e}"]
    cells += [clock(max(row.hours / gpus, row.longest)) for gpus in (1, 8, 64)]
    if price is not None:
        cells.append(f"{row.hours * price:,.2f}")
    return "| " + " | ".join([*cells, row.kin]) + " |"


def clock(hours: float) -> str:
    if hours < 1 / 6:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 3 else f"{hours:,.0f} h"


def table(price: float | None) -> list[str]:
    head = ["table", "runs", "images", "dense FLOPs", "1 GPU", "8 GPUs", "64 GPUs"]
    head += ["price"] if price is not None else []
    head.append("at the rate of")
    rows = [row(name, left(read_table(name), [])) for name in names("table")]
    lines = [line(each, price) for each in rows]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]


# -- a check --------------------
def check(folder: Path) -> list[str]:
    """Predict finished runs here: images by the model above, seconds by the median time of a step
    and, for another model, by its FLOPs."""
    done = [run for run in find_runs(folder) if run.state == "done"]
    lines = [
        "| model | runs | steps, wrong | seconds, ours / predicted (quartiles) |",
        "|---|---|---|---|",
    ]
    groups = defaultdict[str, list[Any]](list)
    for run in done:
        groups[f"{run.result['model']}, {run.result['data']}"].append(run)
    for name, runs in groups.items():
        size = runs[0].description["recipe"]["batch_size"]
        step = median(run.result["step_seconds"] for run in runs)
        wrong = sum(images(run.description) != run.result["steps"] * size for run in runs)
        ratios = [r.result["seconds"] / (images(r.description) / size * step) for r in runs]
        low, middle, high = quantiles(ratios, n=4)
        lines.append(f"| {name} | {len(runs)} | {wrong} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--price", type=float, help="of a GPU for an hour, in your currency")
    parser.add_argument("--check", type=Path, metavar="DIR", help="a folder of finished runs")
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    given = parser.parse_args()
    lines = check(given.check) if given.check else table(given.price)
    if given.write:
        before, rest = PAGE.read_text().split(BEGIN)
        after = rest.split(END)[1]
        PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
