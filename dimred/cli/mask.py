"""dimred mask: show which weights a run has trained, or compare the masks of two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimred.cli.commands import Parser, add_json, local_folder
from dimred.errors import counted
from dimred.runs.printing import percent, table

if TYPE_CHECKING:
    from dimred.storage.masks import Masks

BAR = 30  # characters
RUNS = {"show": 1, "diff": 2}


def parser() -> Parser:
    parser = Parser(
        "mask",
        "show RUN [--json]",
        "diff RUN RUN [--json]",
        summary="Show which weights a run has trained, layer by layer, or compare the masks of "
        "two runs.",
    )
    parser.add_argument("action", choices=tuple(RUNS), help="what to do")
    parser.add_argument(
        "runs",
        nargs="*",
        type=local_folder,
        default=[],
        metavar="RUN",
        help="folders of runs, or masks.npz",
    )
    add_json(parser)
    return parser


def run(arguments: list[str]) -> int:
    from dimred.storage.masks import read_masks

    parsed = parser()
    given = parsed.parse(arguments)
    if len(given.runs) != RUNS[given.action]:
        parsed.error(f"got {counted(len(given.runs), 'run')}")
    folders: list[Path] = given.runs
    first, *others = map(read_masks, folders)
    if given.action == "show":
        found = counts(first, nonzero_of(folders[0]))
        text = bars(found)
    else:
        from dimred.report.masks import compare, require_same_layers

        require_same_layers(first, others[0], *folders)
        found = compare(first, others[0])
        text = overlaps(found)
    print(json.dumps(found, indent=2) if given.json else text)
    return 0


# -- one run --------------------
def nonzero_of(run: Path) -> dict[str, int]:
    """The number of nonzero weights of each layer, if result.json has it."""
    try:
        layers = json.loads((run / "result.json").read_text())["layers"]
        return {name: layer["nonzero"] for name, layer in layers.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def counts(masks: Masks, nonzero: dict[str, int]) -> dict[str, Any]:
    layers = {
        name: {
            "shape": list(mask.shape),
            "total": mask.size,
            "trained": int(mask.sum()),
            "nonzero": nonzero.get(name),
        }
        for name, mask in masks.items()
    }
    all_known = masks.keys() <= nonzero.keys()
    return {
        "layers": layers,
        "total": sum(layer["total"] for layer in layers.values()),
        "trained": sum(layer["trained"] for layer in layers.values()),
        "nonzero": sum(nonzero[name] for name in masks) if all_known else None,
    }


def bars(found: dict[str, Any]) -> str:
    rows = [
        (name, "x".join(map(str, layer["shape"])), *numbers(layer))
        for name, layer in found["layers"].items()
    ]
    header = ("layer", "shape", "total", "trained", "", "", "nonzero")
    return table(header, [*rows, ("all", "", *numbers(found))])


def numbers(layer: dict[str, Any]) -> tuple[object, ...]:
    trained, total, nonzero = layer["trained"], max(1, layer["total"]), layer["nonzero"]
    return (
        layer["total"],
        trained,
        percent(trained / total),
        bar(trained / total),
        "" if nonzero is None else f"{nonzero} ({percent(nonzero / total)})",
    )


def bar(fraction: float) -> str:
    """At least one full character for any fraction above 0."""
    full = min(BAR, round(BAR * fraction)) or int(fraction > 0)
    return "█" * full + "░" * (BAR - full)


# -- two runs --------------------
def overlaps(compared: dict[str, Any]) -> str:
    rows = [
        (
            name,
            f"{layer['overlap']:.4f}",
            bar(layer["overlap"]),
            layer["both"],
            layer["only_first"],
            layer["only_second"],
            layer["total"],
        )
        for name, layer in [*compared["layers"].items(), ("all", compared)]
    ]
    return table(("layer", "overlap", "", "both", "only first", "only second", "total"), rows)
