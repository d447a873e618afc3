"""Finished runs to draw, and what their pictures say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dimred.report.pictures.catalogue import pictures
from dimred.report.pictures.picture import WIDE
from dimred.report.pictures.points import (
    Setting,
    settings_of,
)
from dimred.report.runs import find_runs

HOSTILE = (
    '</pre></script><script>document.title="got in"</script><img src=x onerror=alert(1)>"\'><b>$x$'
)


def change(run: Path, **values: Any) -> None:
    """Keys of a result; None takes one away."""
    result = json.loads((run / "result.json").read_text()) | values
    (run / "result.json").write_text(
        json.dumps({key: value for key, value in result.items() if value is not None})
    )


def change_config(run: Path, old: str, new: str) -> None:
    text = (run / "config.yaml").read_text()
    assert old in text
    (run / "config.yaml").write_text(text.replace(old, new))


def folders(runs: Path, pattern: str = "*") -> list[Path]:
    return sorted(runs.glob(f"*/*/{pattern}"))


def settings(*places: Path) -> list[Setting]:
    return settings_of(
        [run for place in places for run in find_runs(place) if run.state == "done"]
    )[0]


def written(what: str, runs: Path, width: float = WIDE) -> list[str]:
    """What is written in each of the pictures of a kind."""
    return [
        " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture.inline(width, "x")))
        for picture in pictures(what, settings(runs))[0]
    ]
