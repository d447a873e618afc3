"""dimred completion: what a shell needs to complete commands, options, keys, values, runs and
tables."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from dimred.cli.arguments import flags
from dimred.cli.declared import COMMANDS, COMMON, Command
from dimred.errors import UserError, nearest
from dimred.runs.config.fields import fields, group_files, own_folders
from dimred.runs.config.files import GROUPS, conf, names

# Each gets the line up to the cursor completed by `dimred completion reply LINE`, a candidate a
# line. What may go on after a candidate ends in one of = . / and has no space after it.
BASH = r"""
_dimred() {
    local line="${COMP_LINE:0:$COMP_POINT}" program="${1/#\~/$HOME}" word prefix
    local IFS=$'\n'
    COMPREPLY=($("$program" completion reply "$line" 2>/dev/null))
    word="${line##*[[:space:]]}"
    prefix="${word%"${word##*[=:]}"}"       # readline replaces what is behind the last = or : alone
    if [[ "$COMP_WORDBREAKS" == *[=:]* && -n "$prefix" ]]; then
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=./] ]]; then
        compopt -o nospace
    fi
}
complete -F _dimred dimred
"""
ZSH = r"""
#compdef dimred
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_dimred() {
    local -a found
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    found=(${(f)"$(${~words[1]} completion reply "$line" 2>/dev/null)"})
    compadd -S '' -- ${(M)found:#*[=./]}
    compadd -- ${found:#*[=./]}
}
compdef _dimred dimred
"""
FISH = r"""
function __dimred_complete
    set -l words (commandline -po)
    command $words[1] completion reply (commandline -cp | string collect) 2>/dev/null
end
complete -c dimred -f -a '(__dimred_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
VALUES = (
    "sparsity",
    "seed",
    "include",
    "exclude",
    "device",
    "data_dir",
    "outputs",
    "checkpoint_seconds",
)
FOLDERS = ("DIR", "folder")


def completion(arguments: list[str]) -> int:
    if arguments[:1] == ["reply"]:
        for candidate in complete(" ".join(arguments[1:])):
            print(candidate)
        return 0
    flags(arguments)
    if len(arguments) != 1:
        raise UserError(
            f"usage: dimred completion {'|'.join(SCRIPTS)} (got {len(arguments)} arguments)"
        )
    print(script(arguments[0]))
    return 0


def script(shell: str) -> str:
    if shell not in SCRIPTS:
        raise UserError(f"unknown shell {shell!r}. {nearest(shell, SCRIPTS)}")
    return SCRIPTS[shell].strip()


def complete(line: str) -> list[str]:
    """What the last word of a line may become: whole words, sorted."""
    words = split(line)[1:]  # without the program
    *before, word = words or [""]
    if not before:
        return matching(word, [*COMMANDS, "--help", "--version"])
    command = COMMANDS.get(before[0])
    if command is None:
        return []
    return sorted(set(matching(word, candidates(command, before[1:], word))))


def split(line: str) -> list[str]:
    """The words of a line as a shell splits it, the last one unfinished."""
    for end in ("", "'", '"'):  # a quote may be open
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        return [*words, ""] if not end and line[-1:].isspace() else words
    return line.split(" ")


def matching(word: str, found: Iterable[str]) -> list[str]:
    return [each for each in found if each.startswith(word)]


def candidates(command: Command, before: Sequence[str], word: str) -> Iterable[str]:
    options = {option.name: option for option in (*command.options, *COMMON)}
    name, equals, value = word.partition("=")
    if equals and name in options:
        return [f"{name}={each}" for each in of_kind(options[name].value, before, value)]
    if word.startswith("-"):
        return options
    last = before[-1] if before else ""
    if last in options and options[last].value:
        return of_kind(options[last].value, before, word)
    takes = command.takes or ("",)
    place = len([each for each in before if not each.startswith("-")])
    return of_kind(takes[min(place, len(takes) - 1)], before, word)


def of_kind(kind: str, before: Sequence[str], word: str) -> Iterable[str]:
    """All there is of a kind of argument: a run, a table, one of md|csv, ..."""
    if kind == "run":
        return matching(word, runs(word)) or paths(word, folders_only=True)
    if kind == "override":
        return overrides(before, word)
    if kind == "method":
        return group_files("method", own_folders(before))
    if kind == "field":
        return [each.removeprefix("method.") for each in inside("method", before[0], before)]
    if kind == "table":
        return names("table")
    if kind == "file" or kind in FOLDERS:
        return paths(word, folders_only=kind in FOLDERS)
    return kind.split("|") if kind.islower() or "|" in kind else []


# -- KEY=VALUE --------------------
def overrides(before: Sequence[str], word: str) -> Iterable[str]:
    key, equals, value = word.partition("=")
    if equals:
        done, comma, _ = value.rpartition(",")  # of several values, the last one is completed
        return [
            f"{key}={done}{comma}{each}"
            for each in values(key, before, value[len(done) + len(comma) :])
        ]
    group = key.partition(".")[0]
    if "." in key and group in GROUPS:
        return inside(group, chosen(group, before), before)
    return [*(f"{key}=" for key in (*GROUPS, *VALUES)), *(f"{group}." for group in GROUPS)]


def values(key: str, before: Sequence[str], value: str) -> Iterable[str]:
    """What a key may be set to, where that is known."""
    if key in GROUPS:
        return group_files(key, own_folders(before))
    if key == "device":
        return ("auto", "cpu", "cuda")
    if key in ("data_dir", "outputs"):
        return paths(value, folders_only=True)
    if key in ("mask", "method.mask"):
        return [*runs(value), *paths(value)]
    group, _, name = key.partition(".")
    if group in GROUPS:
        path = group_files(group, own_folders(before)).get(chosen(group, before))
        found = fields(group, path, own_folders(before)).fields if path else []
        return [
            choice for field in found if field.name == name for choice in field.choices
        ] or paths(value)
    return ()


def inside(group: str, name: str, before: Sequence[str]) -> list[str]:
    """The keys of a group, for a member of it."""
    path = group_files(group, own_folders(before)).get(name)
    found = fields(group, path, own_folders(before)).fields if path else []
    return [f"{group}.{field.name}=" for field in found]


def chosen(group: str, before: Sequence[str]) -> str:
    """The member of a group that the words before choose, or the default."""
    typed = [word.partition("=")[2] for word in before if word.startswith(f"{group}=")]
    if typed:
        return typed[-1].split(",")[0]
    default = re.search(rf"^  - {group}: (\w+)", (conf() / "config.yaml").read_text(), re.MULTILINE)
    return default[1] if default else ""


# -- files --------------------
def runs(word: str) -> list[str]:
    """Run folders: those under what is typed, or under outputs."""
    place = word if word.endswith("/") else ""
    roots = [Path(place).expanduser()] if place else [Path("outputs/runs")]
    found = [
        path.parent
        for root in roots
        for depth in ("", "*/", "*/*/", "*/*/*/")
        for path in root.glob(f"{depth}config.yaml")
    ]
    return [str(path) for path in found]


def paths(word: str, folders_only: bool = False) -> list[str]:
    """What lies in the folder that is being typed; folders end in a slash."""
    place, _, start = word.rpartition("/")
    folder = place + "/" if "/" in word else ""
    try:
        entries = list(os.scandir(os.path.expanduser(folder or ".")))
    except OSError:
        return []
    shown = [entry for entry in entries if start.startswith(".") or not entry.name.startswith(".")]
    return [
        f"{folder}{entry.name}/" if entry.is_dir() else f"{folder}{entry.name}"
        for entry in shown
        if entry.is_dir() or not folders_only
    ]
