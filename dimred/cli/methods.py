"""dimred methods: list the methods, or describe some."""

from __future__ import annotations

import json

from dimred.cli import help
from dimred.cli.commands import Parser, add_config_dir, add_json
from dimred.runs.config.fields import fields, find_file, own_folders
from dimred.runs.config.files import describe_method, names
from dimred.runs.printing import table
from dimred.runs.terminal import width


def parser() -> Parser:
    parser = Parser(
        "methods",
        "[METHOD ...] [--json] [--config-dir DIR]",
        summary="List all methods, or describe some: equation, fields with defaults and ranges, "
        "source.",
    )
    parser.add_argument(
        "methods", nargs="*", default=[], metavar="METHOD", help="the names of methods"
    )
    add_json(parser)
    add_config_dir(parser)
    return parser


def run(arguments: list[str]) -> int:
    given = parser().parse(arguments)
    folders = own_folders(arguments)
    if not given.methods:
        print(listed(given.json))
        return 0
    found = {name: find_file("method", name, folders) for name in given.methods}
    if given.json:
        described = [
            {"name": name, **fields("method", path, folders).as_json()}
            for name, path in found.items()
        ]
        print(json.dumps(described, indent=2))
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
    listing = table(("method", "family", "what it does, and its source"), lines, width(), wrap=2)
    return f"{listing}\n\nDescribe one: dimred methods NAME"
