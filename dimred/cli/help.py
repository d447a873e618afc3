"""The help of commands, of groups and of methods, in lines that fit the terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from dimred.cli.declared import COMMANDS, COMMON, find
from dimred.runs.config.fields import Field, fields, find_file, group_files, own_folders
from dimred.runs.config.files import GROUPS, conf
from dimred.runs.printing import table
from dimred.runs.terminal import width

TITLE = (
    "dimred: dimensionality-reduced training. Train a few coordinates of a network, prune or "
    "freeze the rest."
)
EXAMPLE = "dimred train method=rigl sparsity=0.95 recipe.epochs=20"


def overview() -> str:
    """All commands."""
    rows = [(name, command.summary) for name, command in COMMANDS.items()]
    return "\n".join(
        [
            wrapped(TITLE),
            "",
            table(("", ""), rows, width(), wrap=1),
            "",
            wrapped(
                "dimred COMMAND --help says more; any command takes --debug, which shows where an "
                "error happened. Try:"
            ),
            "",
            f"  {EXAMPLE}",
            "",
        ]
    )


def of_command(name: str) -> str:
    command = find(name)
    starts = ["usage:", *["      "] * (len(command.usage) - 1)]
    usage = [
        f"{start} dimred {name} {form}" for start, form in zip(starts, command.usage, strict=True)
    ]
    options = [(option.shown(), option.about()) for option in (*command.options, *COMMON)]
    more = [wrapped(command.more), ""] if command.more else []
    return "\n".join([*usage, "", wrapped(command.summary), "", *more, indented(options), ""])


def of_train(words: Sequence[str]) -> str:
    """The keys and what they may be; of the groups that the words choose, the fields instead."""
    folders = own_folders(words)
    chosen = [word.partition("=")[::2] for word in words if word.partition("=")[0] in GROUPS]
    members = [(group, name) for group, value in chosen for name in value.split(",")]
    if members:
        return "\n\n".join(of_group(group, name, folders) for group, name in members) + "\n"
    values = re.findall(
        r"^(\w+): (\S.*?)(?:\s+# (.*))?$", (conf() / "config.yaml").read_text(), re.MULTILINE
    )
    rows = [
        (f"{key}=", re.sub(r"\$\{oc[.]env:\w+,'(.*)'\}", r"\1", default), comment)
        for key, default, comment in values
    ]
    keys = table(("", "", ""), rows, width() - 2, wrap=2)
    return "\n".join(
        [
            of_command("train"),
            wrapped("Groups, each a folder of files; --config-dir DIR adds your own:"),
            groups(folders),
            "",
            "Values, with their defaults:",
            textwrap.indent(keys, "  "),
            "",
            wrapped(
                "Values inside a group, by a dot: recipe.epochs=1 method.every=200 model.width=2. "
                "To see them: dimred train method=rigl --help"
            ),
            "",
        ]
    )


def of_group(group: str, name: str, folders: Sequence[Path]) -> str:
    """What a member of a group is: its docstring where dimred has it, then its fields."""
    found = fields(group, find_file(group, name, folders), folders)
    paragraphs = found.about.split("\n\n")
    shown = [
        equation(part) if part.startswith("    ") else wrapped(" ".join(part.split()))
        for part in paragraphs
        if part
    ]
    return "\n\n".join(
        [f"{group}={name}", *shown, *([field_table(group, found.fields)] if found.fields else [])]
    )


def equation(text: str) -> str:
    """Indented; its lines stay apart."""
    return "\n".join(
        textwrap.fill(line.strip(), width(), initial_indent=" " * 4, subsequent_indent=" " * 6)
        for line in text.splitlines()
    )


def field_table(group: str, found: Iterable[Field]) -> str:
    """Name and default, then what it is and may be."""
    rows = [(f"{group}.{field.name}", field.default, field.about()) for field in found]
    return table(("field", "default", "what it is, and may be"), rows, width(), wrap=2)


def groups(folders: Sequence[Path]) -> str:
    rows = [(f"{group}=", " ".join(sorted(group_files(group, folders)))) for group in GROUPS]
    return indented(rows)


def indented(rows: Iterable[Sequence[object]]) -> str:
    return textwrap.indent(table(("", ""), rows, width() - 2, wrap=1), "  ")


def wrapped(text: str) -> str:
    return textwrap.fill(text, width(), break_on_hyphens=False)
