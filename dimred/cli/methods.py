"""dimred methods: what there is to choose from."""

from __future__ import annotations

import json

from dimred.cli import help
from dimred.cli.arguments import flag, option
from dimred.runs.config.fields import fields, find_file, own_folders
from dimred.runs.config.files import describe_method, names
from dimred.runs.printing import table
from dimred.runs.terminal import width


def methods(arguments: list[str]) -> int:
    """List all methods, or describe those that are named."""
    folders = own_folders(arguments)
    option(arguments, "--config-dir")
    as_json = flag(arguments, "--json")
    if not arguments:
        print(listed(as_json))
        return 0
    found = {name: find_file("method", name, folders) for name in arguments}
    if as_json:
        print(
            json.dumps(
                [
                    {"name": name, **fields("method", path, folders).as_json()}
                    for name, path in found.items()
                ],
                indent=2,
            )
        )
    else:
        print("\n\n".join(help.of_group("method", name, folders) for name in found))
    return 0


def listed(as_json: bool) -> str:
    rows = sorted(
        (describe_method(name) for name in names("method")),
        key=lambda row: (row["family"], row["name"]),
    )
    if as_json:
        return json.dumps(rows, indent=2)
    lines = [(row["name"], row["family"], f"{row['summary']} {row['source']}") for row in rows]
    listing = table(
        ("method", "family", "what it does, and where it is from"), lines, width(), wrap=2
    )
    return f"{listing}\n\ndimred methods NAME says more of one."
