"""dimred completion: tab completion of commands, options, keys, values, runs and tables."""

from __future__ import annotations

import os
import re
import shlex
from argparse import Action
from collections.abc import Iterable, Sequence
from pathlib import Path

from dimred.cli import help
from dimred.cli.commands import COMMANDS, Parser, find
from dimred.errors import UserError, nearest
from dimred.runs.config.fields import Field, fields, group_files, own_folders, place
from dimred.runs.config.files import EXPERIMENT, GROUPS, TRACKER, conf, names

# Each script asks `dimred completion reply LINE`, with the line up to the cursor, and reads one
# candidate per line. No space follows a candidate that ends in = . or /
BASH = r"""
_dimred() {
    local line="${COMP_LINE:0:$COMP_POINT}" program="${1/#\~/$HOME}" word prefix
    local IFS=$'\n'
    COMPREPLY=($("$program" completion reply "$line" 2>/dev/null))
    word="${line##*[[:space:]]}"
    prefix="${word%"${word##*[=:]}"}"       # readline replaces only the part after the last = or :
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
LISTED = (*GROUPS, TRACKER)
#: by which runs are often told apart, of the columns of dimred runs --format csv
COLUMNS = ("method", "basis", "dataset", "model", "sparsity", "device_name")
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def parser() -> Parser:
    parser = Parser(
        "completion",
        "bash|zsh|fish",
        summary="Print a script that makes a shell complete the arguments of dimred.",
        more='bash: eval "$(dimred completion bash)" in ~/.bashrc. zsh: eval "$(dimred completion '
        'zsh)" in ~/.zshrc. fish: dimred completion fish | source in ~/.config/fish/config.fish.',
    )
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="the shell to print it for")
    return parser


def run(arguments: list[str]) -> int:
    if arguments[:1] == ["reply"]:  # asked by the scripts
        for candidate in complete(" ".join(arguments[1:])):
            print(candidate)
        return 0
    print(script(parser().parse(arguments).shell))
    return 0


def script(shell: str) -> str:
    if shell not in SCRIPTS:
        raise UserError(f"unknown shell {shell!r}. {nearest(shell, SCRIPTS)}")
    return SCRIPTS[shell].strip()


def complete(line: str) -> list[str]:
    """The words that the last word of a line may become, sorted."""
    words = split(line)[1:]  # without the program
    *before, word = words or [""]
    if not before:
        return matching(word, [*COMMANDS, "--help", "--version"])
    if before[0] not in COMMANDS:
        return []
    found = candidates(find(before[0]).parser(), before[1:], word)
    return sorted(set(matching(word, found)))


def split(line: str) -> list[str]:
    """The words of a line as a shell splits it, the last one unfinished."""
    for end in ("", "'", '"'):  # close an open quote
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        return [*words, ""] if not end and line[-1:].isspace() else words
    return line.split(" ")


def matching(word: str, found: Iterable[str]) -> list[str]:
    return [each for each in found if each.startswith(word)]


def candidates(parser: Parser, before: Sequence[str], word: str) -> Iterable[str]:
    options = parser.options()
    name, equals, value = word.partition("=")
    if equals and name in options:
        return [f"{name}={each}" for each in values_of(options[name], before, value)]
    if word.startswith("-"):
        return [name for name in options if name.startswith("--")]
    last = before[-1] if before else ""
    if last in options and options[last].nargs != 0:
        return values_of(options[last], before, word)
    positionals = parser.positionals()
    if not positionals:
        return []
    # the last one stands for all that follow
    place = len([each for each in before if not each.startswith("-")])
    return values_of(positionals[min(place, len(positionals) - 1)], before, word)


def values_of(action: Action, before: Sequence[str], word: str) -> Iterable[str]:
    """All values of an argument, by its choices or else by its metavar."""
    if action.choices is not None:
        return list(action.choices)
    kind = action.metavar
    if kind == "RUN":
        return matching(word, runs(word)) or paths(word, folders_only=True)
    if kind == "PICTURE":
        from dimred.cli.plot import NAMES

        return matching(word, NAMES) or paths(word, folders_only=True)
    if kind == "KEY=VALUE":
        return overrides(before, word)
    if kind == "METHOD":
        return group_files("method", own_folders(before))
    if kind == "FIELD=VALUE":
        return [each.removeprefix("method.") for each in inside("method", before[0], before)]
    if kind == "NUMBER":
        from dimred.report.measures import MEASURES

        return list(MEASURES)
    if kind == "COLUMN":
        return COLUMNS
    if kind == "TABLE":
        return names("table")
    if kind in ("FILE", "DIR"):
        return paths(word, folders_only=kind == "DIR")
    return []


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
    if "." in key and group in LISTED:
        found: list[str] = []
        for name in chosen(group, before):
            found += inside(group, name, before)
        return found
    keys = [*(key for key, _, _ in help.values()), f"+{EXPERIMENT}="]
    return [*keys, *(f"{group}=" for group in LISTED), *(f"{group}." for group in LISTED)]


def values(key: str, before: Sequence[str], value: str) -> Iterable[str]:
    """The values of a key, where they are known."""
    if key in (*LISTED, f"+{EXPERIMENT}"):
        return group_files(key.lstrip("+"), own_folders(before))
    if key == "device":
        return ("auto", "cpu", "cuda")
    if key in ("data_dir", "outputs"):
        return paths(value, folders_only=True)
    if key in ("mask", "method.mask"):
        return [*runs(value), *paths(value)]
    group = key.partition(".")[0]
    if group in LISTED:
        for name in chosen(group, before):
            for field in fields_of(group, name, before):
                if f"{place(group, name)}.{field.name}" == key and field.choices:
                    return field.choices
        return paths(value)
    return ()


def inside(group: str, name: str, before: Sequence[str]) -> list[str]:
    """The keys of a group, for a member of it."""
    key = place(group, name)
    return [f"{key}.{field.name}=" for field in fields_of(group, name, before)]


def fields_of(group: str, name: str, before: Sequence[str]) -> list[Field]:
    folders = own_folders(before)
    path = group_files(group, folders).get(name)
    return fields(group, path, folders).fields if path else []


def chosen(group: str, before: Sequence[str]) -> list[str]:
    """The members of a group that the words choose, or the default."""
    typed = [word.partition("=")[2] for word in before if word.startswith(f"{group}=")]
    if typed:
        first, *others = typed[-1].strip("[]").split(",")
        return [first, *others] if group == TRACKER else [first]
    text = (conf() / "config.yaml").read_text()
    return re.findall(rf"^  - {group}: (\w+)", text, re.MULTILINE)


# -- files --------------------
def runs(word: str) -> list[str]:
    """The run folders below the word, or below outputs."""
    root = Path(word).expanduser() if word.endswith("/") else Path("outputs/runs")
    found: list[str] = []
    for depth in ("", "*/", "*/*/", "*/*/*/"):
        found += [str(path.parent) for path in root.glob(f"{depth}config.yaml")]
    return found


def paths(word: str, folders_only: bool = False) -> list[str]:
    """The files and folders that the word may become; folders end in a slash."""
    place, _, start = word.rpartition("/")
    folder = place + "/" if "/" in word else ""
    try:
        entries = list(os.scandir(os.path.expanduser(folder or ".")))
    except OSError:
        return []
    found = []
    for entry in entries:
        hidden = entry.name.startswith(".") and not start.startswith(".")
        if entry.is_dir() and not hidden:
            found.append(f"{folder}{entry.name}/")
        elif not folders_only and not hidden:
            found.append(f"{folder}{entry.name}")
    return found
