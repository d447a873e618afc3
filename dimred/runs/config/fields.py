"""The fields of a method, a recipe, ...: defaults and comments from its YAML, types and ranges from
its class. Read without importing the class (or torch)."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from dimred.errors import UserError
from dimred.runs.config.files import conf, unknown_name

PACKAGE = Path(__file__).parents[2]
SHARED_CHECKS = ("select/schedules.py", "select/rewiring.py")
LINE = re.compile(r"(\w+):\s*(.*?)\s*(?:(?:^|\s)#\s*(.*))?$")  # key: value  # comment


class Field(NamedTuple):
    """A value inside a group, as text. choices: what it may be, if these are names; allowed: its
    range, if it has one."""

    name: str
    default: str
    comment: str
    choices: tuple[str, ...]
    allowed: str

    def about(self) -> str:
        limits = self.allowed or (
            "" if any(c in self.comment for c in self.choices) else " or ".join(self.choices)
        )
        return "; ".join(part for part in (self.comment, limits) if part)


class Described(NamedTuple):
    """about: the docstring of the class, or what the file begins with"""

    about: str
    fields: list[Field]

    def as_json(self) -> dict[str, Any]:
        return {"about": self.about, "fields": [field._asdict() for field in self.fields]}


# -- files --------------------
def own_folders(words: Sequence[str]) -> list[Path]:
    """The folders that a command line adds: --config-dir DIR and hydra.searchpath=[file://DIR]."""
    found = []
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--config-dir", "-cd"):
            found += [value] if equals else list(words[i + 1 : i + 2])
        if name == "hydra.searchpath":
            found += re.findall(r"file://([^,\]]+)", value)
    return [Path(folder).expanduser() for folder in found]


def group_files(group: str, folders: Sequence[Path] = ()) -> dict[str, Path]:
    """The files of a group, by name; those of one's own folders come first."""
    places = [conf(), *reversed(folders)]
    return {path.stem: path for place in places for path in sorted((place / group).glob("*.yaml"))}


def find_file(group: str, name: str, folders: Sequence[Path] = ()) -> Path:
    """UserError with the nearest names if there is none."""
    files = group_files(group, folders)
    if name not in files:
        raise UserError(unknown_name(group, name, files))
    return files[name]


def fields(group: str, path: Path, folders: Sequence[Path] = ()) -> Described:
    """The fields of a file of a group, those that it inherits included."""
    values = dict(_lines(group, path, folders))
    target = values.pop("_target_", ("", ""))[0]
    classes = list(_classes(target))
    ranges: dict[str, str] = {}
    choices: dict[str, tuple[str, ...]] = {}
    for node in reversed(classes):
        ranges |= dict(_ranges(node, group))
        choices |= dict(_choices(node))
    found = [
        Field(name, _default(value), comment, choices.get(name, ()), ranges.get(name, ""))
        for name, (value, comment) in values.items()
    ]
    docstring = next((ast.get_docstring(node) for node in classes), None)
    return Described(docstring or _heading(path), found)


def _heading(path: Path) -> str:
    """The comment that a file begins with."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return " ".join(
        line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines)
    )


def _default(value: str) -> str:
    """A value that is the run's own is shown by its key."""
    own = re.fullmatch(r"\$\{(\w+)\}", value)
    return f"that of {own[1]}=" if own else value


def _lines(
    group: str, path: Path, folders: Sequence[Path]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """Keys with values and comments as they stand in the file; first those of the files that it
    inherits from."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for parent in re.findall(r"^\s*- ([\w.+-]+)\s*(?:#.*)?$", text, re.MULTILINE):
        files = group_files(group, folders)
        if parent in files and files[parent] != path:
            yield from _lines(group, files[parent], folders)
    for line in text.splitlines():
        if (found := LINE.match(line)) and found[1] != "defaults":
            yield found[1], (found[2], found[3] or "")


# -- classes --------------------
def _classes(target: str) -> Iterator[ast.ClassDef]:
    """The class of a target and those that it is made from, as far as they lie in the same
    package."""
    module, _, name = target.rpartition(".")
    sources = _sources(module)
    waiting, seen = [name], set[str]()
    while waiting:
        name = waiting.pop(0)
        for path in sources:
            for node in _parsed(path):
                if node.name == name and name not in seen:
                    seen.add(name)
                    waiting += [base.id for base in node.bases if isinstance(base, ast.Name)]
                    yield node


def _sources(module: str) -> list[Path]:
    """The files of a module, without importing it (of a package within another, the latter is
    imported)."""
    with suppress(ImportError, ValueError, AttributeError):
        own = (
            module.removeprefix("dimred.").replace(".", "/") if module.startswith("dimred.") else ""
        )
        place = PACKAGE / own
        if own and place.is_dir():
            return sorted(place.rglob("*.py"))
        if own:
            return [place.with_suffix(".py")]
        spec = importlib.util.find_spec(module) if module else None
        if spec and spec.origin:
            return [Path(spec.origin)]
    return []


@lru_cache
def _parsed(path: Path) -> list[ast.ClassDef]:
    with suppress(OSError, SyntaxError, ValueError):
        return [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    return []


def _ranges(node: ast.AST, group: str) -> Iterator[tuple[str, str]]:
    """What `require(condition, "method.every", value, "1 or more steps")` says of each field; also
    where it is written once for several: for name in ("lr", "epochs"): require(condition,
    f"recipe.{name}", value, "a number above 0"); or where a function that methods share says it:
    require_period(self.every)."""
    for call in ast.walk(node):
        if isinstance(call, ast.For):
            names = [
                item.value
                for item in getattr(call.iter, "elts", [])
                if isinstance(item, ast.Constant)
            ]
            for allowed in (_allowed(each, ast.JoinedStr) for each in ast.walk(call)):
                yield from ((str(name), allowed) for name in names if allowed)
        elif allowed := _allowed(call, ast.Constant):
            key = str(call.args[1].value)  # type: ignore[attr-defined]
            yield from ((name, allowed) for name in re.findall(rf"{group}\.(\w+)", key))
        elif isinstance(call, ast.Call):
            allowed = _shared_checks().get(getattr(call.func, "id", ""), "")
            yield from (
                (name, allowed) for name in re.findall(r"self\.(\w+)", ast.unparse(call)) if allowed
            )


@lru_cache
def _shared_checks() -> dict[str, str]:
    """What the functions require_... that methods share allow, by their names."""
    found = {}
    for path in (PACKAGE / name for name in SHARED_CHECKS):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef) and function.name.startswith("require_"):
                texts = [_allowed(call, ast.expr) for call in ast.walk(function)]
                found[function.name] = next(filter(None, texts), "")
    return found


def _allowed(call: ast.AST, key: type[ast.expr]) -> str:
    """The last argument of `require`, where its key is written in this way."""
    if not isinstance(call, ast.Call) or getattr(call.func, "id", "") != "require":
        return ""
    if len(call.args) != 4 or not isinstance(call.args[1], key):
        return ""
    allowed = call.args[3]
    return str(allowed.value) if isinstance(allowed, ast.Constant) else ""


def _choices(node: ast.ClassDef) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The names of fields that are Literal, and true or false for those that are bool."""
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        literals = [
            part
            for part in ast.walk(line.annotation)
            if isinstance(part, ast.Subscript)
            and isinstance(part.value, ast.Name)
            and part.value.id == "Literal"
        ]
        names = [
            item.value
            for part in literals
            for item in ast.walk(part.slice)
            if isinstance(item, ast.Constant)
        ]
        if isinstance(line.annotation, ast.Name) and line.annotation.id == "bool":
            names = ["true", "false"]
        if names:
            yield line.target.id, tuple(map(str, names))
