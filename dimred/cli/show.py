"""dimred show: the layers, numbers and configuration of a run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from dimred.cli.commands import Parser, add_json, existing_folder
from dimred.errors import UserError, as_typed
from dimred.runs.config.leaves import leaves
from dimred.runs.printing import percent, table
from dimred.runs.terminal import printable, width

DAMAGED = (ValueError, TypeError, AttributeError, LookupError, FileNotFoundError, RecursionError)


def parser() -> Parser:
    parser = Parser(
        "show", "RUN [--json]", summary="Show the layers, numbers and configuration of a run."
    )
    parser.add_argument("run", metavar="RUN", type=existing_folder, help="the folder of a run")
    add_json(parser)
    return parser


def run(arguments: list[str]) -> int:
    given = parser().parse(arguments)
    folder: Path = given.run
    path = folder / "result.json"
    if not path.exists():
        raise UserError(f"{folder} has no result.json: {without_result(folder)}")
    try:
        result = json.loads(path.read_text())
        if not isinstance(result, dict):
            raise TypeError("result.json is no object")
        print(json.dumps(result, indent=2) if given.json else shown(result, folder))
    except DAMAGED as error:
        raise UserError(
            f"{folder} is damaged ({error}). Remove it and repeat the command of the run"
        ) from error
    return 0


def without_result(folder: Path) -> str:
    if (folder / "config.yaml").exists():
        return "the run is unfinished. Repeat its command to resume it"
    return "it is not a run. Runs are in outputs/runs/DATASET/MODEL/"


def shown(result: dict[str, Any], folder: Path) -> str:
    layers = [layer_row(name, layer) for name, layer in result.get("layers", {}).items()]
    others = {key: value for key, value in result.items() if key not in ("layers", "folder")}
    numbers = [(key, in_words(key, value)) for key, value in others.items()]
    parts = (
        printable(str(folder)),  # never wrapped, so that it can be copied
        table(("layer", "shape", "total", "trained", "nonzero"), layers),
        table(("", ""), numbers, width(), wrap=1),
        printable((folder / "config.yaml").read_text().rstrip()),
    )
    return "\n\n".join(parts)


def in_words(key: str, value: Any) -> str:
    """A value of result.json for a reader: the command as it was typed, other lists and mappings
    without brackets."""
    if key == "command" and isinstance(value, list):
        return " ".join([*map(str, value[:1]), shlex.join(map(str, value[1:]))])
    if isinstance(value, dict):
        return ", ".join(
            f"{'.'.join(path)}: {as_typed(end)}" for path, end in leaves(value) if path
        )
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(as_typed(value))


def layer_row(name: str, layer: dict[str, Any]) -> tuple[object, ...]:
    total, trained, nonzero = layer["total"], layer["trained"], layer["nonzero"]
    return (
        name,
        "x".join(map(str, layer["shape"])),
        total,
        f"{trained} ({percent(trained / total)})",
        f"{nonzero} ({percent(nonzero / total)})",
    )
