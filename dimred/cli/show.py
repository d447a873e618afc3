"""dimred show: a run in numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dimred.cli.arguments import flag, one_folder
from dimred.errors import UserError
from dimred.runs.printing import percent, table
from dimred.runs.terminal import printable


def show(arguments: list[str]) -> int:
    as_json = flag(arguments, "--json")
    folder = one_folder(arguments, "dimred show RUN [--json]")
    path = folder / "result.json"
    if not path.exists():
        state = (
            "unfinished: repeat its command to resume it"
            if (folder / "config.yaml").exists()
            else "not a run"
        )
        raise UserError(
            f"{folder} has no result.json; it is {state}. Runs lie in outputs/runs/DATASET/MODEL/"
        )
    try:
        result = json.loads(path.read_text())
        if not isinstance(result, dict):
            raise TypeError("result.json is no object")
        print(json.dumps(result, indent=2) if as_json else shown(result, folder / "config.yaml"))
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        FileNotFoundError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{folder} is damaged ({error}). Remove it and give the run's command again"
        ) from error
    return 0


def shown(result: dict[str, Any], config: Path) -> str:
    layers = table(
        ("layer", "shape", "total", "trained", "nonzero"),
        [
            (
                name,
                "x".join(map(str, v["shape"])),
                v["total"],
                f"{v['trained']} ({percent(v['trained'] / v['total'])})",
                f"{v['nonzero']} ({percent(v['nonzero'] / v['total'])})",
            )
            for name, v in result.get("layers", {}).items()
        ],
    )
    numbers = table(("", ""), [(key, value) for key, value in result.items() if key != "layers"])
    return f"{layers}\n\n{numbers}\n\n{printable(config.read_text().rstrip())}"
