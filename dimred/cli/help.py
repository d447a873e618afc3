"""Help for the command line, for groups of files and for methods, in lines that fit the
terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from dimred.cli.commands import COMMANDS, find
from dimred.runs.config.fields import Field, fields, find_file, group_files, own_folders, place
from dimred.runs.config.files import EXPERIMENT, GROUPS, TRACKER, conf
from dimred.runs.printing import table
from dimred.runs.terminal import width

TITLE = (
    "dimred: dimensionality-reduced training. Train a few coordinates of a network, prune or "
    "freeze the rest."
)
MORE = (
    "dimred COMMAND --help describes a command. Every command takes --debug, which shows where "
    "an error happened. Example:"
)
EXAMPLE = "dimred train method=rigl sparsity=0.95 recipe.epochs=20"
INSIDE = (
    "Values inside a group are set by a dot: recipe.epochs=1 method.update_every=200 "
    "model.width=2. List them with the group's choice: dimred train method=rigl --help"
)


def overview() -> str:
    """All commands."""
    rows = [(name, find(name).parser().summary) for name in COMMANDS]
    commands = table(("", ""), rows, width(), wrap=1)
    return "\n\n".join([wrapped(TITLE), commands, wrapped(MORE), f"  {EXAMPLE}\n"])


def overrides(words: Sequence[str]) -> str:
    """The keys of `dimred train` and their values. Where the words choose members of groups: the
    fields of these instead."""
    folders = own_folders(words)
    pairs = [word.partition("=") for word in words]
    listed = (*GROUPS, TRACKER)
    chosen = {group: names.strip("[]").split(",") for group, _, names in pairs if group in listed}
    if chosen:
        parts: list[str] = []
        for group, names in chosen.items():
            parts += [of_group(group, name, folders) for name in names]
        return "\n\n".join(parts)
    groups = [(f"{group}=", " ".join(sorted(group_files(group, folders)))) for group in listed]
    experiments = " ".join(sorted(group_files(EXPERIMENT, folders)))
    return "\n".join(
        [
            wrapped("Groups, each a folder of files; --config-dir DIR adds yours:"),
            indented(groups, 1),
            "",
            wrapped("Experiments, which choose all of these as a paper does; what you type wins:"),
            indented([(f"+{EXPERIMENT}=", experiments)], 1),
            "",
            "Values, with their defaults:",
            indented(values(), 2),
            "",
            wrapped(INSIDE),
        ]
    )


def values() -> list[tuple[str, str, str]]:
    """The values of conf/config.yaml: key, default, comment."""
    found = re.findall(
        r"^(\w+): (\S.*?)(?:\s+# (.*))?$", (conf() / "config.yaml").read_text(), re.MULTILINE
    )
    from_environment = r"\$\{oc[.]env:\w+,'(.*)'\}"
    return [
        (f"{key}=", re.sub(from_environment, r"\1", default), comment)
        for key, default, comment in found
    ]


def of_group(group: str, name: str, folders: Sequence[Path]) -> str:
    """Describe a member of a group: its docstring if it is dimred's, then its fields."""
    found = fields(group, find_file(group, name, folders), folders)
    parts = [f"{group}={name}"]
    for paragraph in filter(None, found.about.split("\n\n")):
        is_equation = paragraph.startswith("    ")
        parts.append(equation(paragraph) if is_equation else wrapped(" ".join(paragraph.split())))
    if found.fields:
        parts.append(field_table(place(group, name), found.fields))
    return "\n\n".join(parts)


def equation(text: str) -> str:
    """Indented, line by line."""
    return "\n".join(
        textwrap.fill(line.strip(), width(), initial_indent=" " * 4, subsequent_indent=" " * 6)
        for line in text.splitlines()
    )


def field_table(key: str, found: Iterable[Field]) -> str:
    rows = [(f"{key}.{field.name}", field.default, field.about()) for field in found]
    return table(("field", "default", "meaning, and allowed values"), rows, width(), wrap=2)


def indented(rows: Sequence[Sequence[object]], wrap: int) -> str:
    return textwrap.indent(table([""] * len(rows[0]), rows, width() - 2, wrap), "  ")


def wrapped(text: str) -> str:
    return textwrap.fill(text, width(), break_on_hyphens=False)
