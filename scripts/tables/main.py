"""Every method on one data set: sweeps in one process, and a table of their results in Markdown."""
from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from dimred.cli import main as dimred
from dimred.configs import describe_method, names, read
from dimred.errors import UserError, nearest
from dimred.printing import table

Json = dict[str, Any]


def main() -> int:
    command = shlex.join(["scripts/all_methods", *sys.argv[1:]])
    options = parse()
    if unknown := set(options.methods) - set(names("method")):
        raise SystemExit(f"unknown method {min(unknown)!r}. {nearest(min(unknown), names('method'))}")
    cells = sweep(options, options.methods, options.model)
    # what this model lacks (norms, convolutions), the other one has
    unfit = {c["method"] for c in cells if c["status"] == "failed" and re.search(r"\bmodel=", c["reason"])}
    if unfit and options.other != options.model:
        cells = [c for c in cells if c["method"] not in unfit] + sweep(options, sorted(unfit), options.other)
    rows = [row(list(group)) for _, group in groupby(sorted(cells, key=order), key=order)]
    print("\n" + table(HEADER, rows))
    path = Path(options.outputs) / "tables" / f"{options.name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(options.dataset, command, rows))
    print(f"\n{path}")
    return 1 if any(c["status"] == "failed" for c in cells) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/all_methods", description=__doc__)
    parser.add_argument("--methods", type=listed, default=names("method"), help="default: all")
    parser.add_argument("--sparsities", type=listed, default=["0.9", "0.95", "0.98"])
    parser.add_argument("--seeds", type=listed, default=["0", "1", "2"])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--model", default="lenet300")
    parser.add_argument("--other", default="resnet20", help="the model for methods that need norms or convolutions")
    parser.add_argument("--epochs", help="default: as the recipe says")
    parser.add_argument("--outputs", default="outputs", help="where runs and tables lie")
    parser.add_argument("--name", help="of the table; default: DATASET_MODEL")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="more of what `dimred train` takes")
    options = parser.parse_args()
    options.name = options.name or f"{options.dataset}_{options.model}"
    return options


def listed(text: str) -> list[str]:
    return text.split(",")


# -- runs --------------------
def sweep(options: argparse.Namespace, methods: list[str], model: str) -> list[Json]:
    """The results of all runs, failures included."""
    sparse = [name for name in methods if "sparsity" in read("method", name)]
    results = []
    for some, sparsities in ((sparse, options.sparsities), ([m for m in methods if m not in sparse], [])):
        if some:
            results += run([f"method={','.join(some)}", *([f"sparsity={','.join(sparsities)}"] if sparsities else []),
                            f"seed={','.join(options.seeds)}", f"dataset={options.dataset}", f"model={model}",
                            *([f"recipe.epochs={options.epochs}"] if options.epochs else []),
                            f"outputs={options.outputs}", *options.overrides])
    return results


def run(overrides: list[str]) -> list[Json]:
    """The outcomes of `dimred train -m ...`."""
    with tempfile.TemporaryDirectory() as folder:
        code = dimred(["train", "-m", *overrides, f"hydra.sweep.dir={folder}"])
        outcomes = [json.loads(path.read_text()) for path in Path(folder).glob("*.json")]
    if code >= 128 or not outcomes:     # stopped, or nothing could be started
        raise SystemExit(code)
    for outcome in outcomes:
        typed = dict(override.split("=", 1) for override in outcome["overrides"])
        outcome |= {"method": typed["method"], "model": typed["model"], "seed": int(typed["seed"]),
                    "sparsity": float(typed["sparsity"]) if "sparsity" in typed else None}
    return outcomes


# -- the table --------------------
HEADER = ("family", "method", "model", "sparsity", "test accuracy", "dim", "density", "seeds", "seconds")


def order(cell: Json) -> tuple[str, str, float]:
    return describe_method(cell["method"])["family"], cell["method"], cell["sparsity"] or 0.0


def row(cells: list[Json]) -> tuple[str, ...]:
    """One method at one sparsity."""
    first, done = cells[0], [c for c in cells if c["status"] == "done"]
    start = (order(first)[0], first["method"], first["model"], "" if first["sparsity"] is None else
             f"{first['sparsity']:g}")
    if not done:
        return (*start, f"failed: {first['reason']}", "", "", "0", "")
    density = statistics.mean(c["density"] for c in done)
    return (*start, mean_and_deviation([100 * c["test_accuracy"] for c in done]),
            f"{statistics.mean(c['dim'] for c in done):.0f}", f"{density:.4f}", str(len(done)),
            f"{statistics.mean(c['seconds'] for c in done):.1f}")


def mean_and_deviation(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def page(dataset: str, command: str, rows: Iterable[tuple[str, ...]]) -> str:
    lines = [HEADER, ["---"] * len(HEADER), *rows]
    body = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
    return f"""\
# Every method on {dataset}

    {command}

Test accuracy in per cent at the end of training, mean ± standard deviation over seeds; `dim` is how many of the covered
weights (and parameters of maps) were trained, `density` the fraction of them that is not zero; seconds of one run, on
{hardware()}.

{body}"""


def hardware() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    name = found[1] if found else platform.processor() or platform.machine()
    return (f"{name}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, "
            f"torch {importlib.metadata.version('torch')}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"scripts/all_methods: {error}")
