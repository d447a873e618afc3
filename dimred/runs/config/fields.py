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
from dimred.fields import Range, ranges
from dimred.fields.values import ranges_of
from dimred.runs.config.files import TRACKER, conf, unknown_name

PACKAGE = Path(__file__).parents[2]
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
    found: dict[str, Path] = {}
    for place in (conf(), *reversed(folders)):
        found |= {path.stem: path for path in sorted((place / group).glob("*.yaml"))}
    return found


def find_file(group: str, name: str, folders: Sequence[Path] = ()) -> Path:
    """UserError with the nearest names if there is none."""
    files = group_files(group, folders)
    if name not in files:
        raise UserError(unknown_name(group, name, files))
    return files[name]


def place(group: str, name: str) -> str:
    """The key of a file's values in the configuration: recipe, tracker.wandb."""
    return f"{group}.{name}" if group == TRACKER else group


def fields(group: str, path: Path, folders: Sequence[Path] = ()) -> Described:
    """The fields of a file of a group, those that it inherits included."""
    values = dict(_lines(group, path, folders))
    target = values.pop("_target_", ("", ""))[0]
    classes = list(_classes(target))
    allowed: dict[str, str] = {}
    choices: dict[str, tuple[str, ...]] = {}
    for node in reversed(classes):
        allowed |= dict(_ranges(node))
        choices |= dict(_choices(node))
    found = [
        Field(name, _default(value), comment, choices.get(name, ()), allowed.get(name, ""))
        for name, (value, comment) in values.items()
    ]
    docstring = next((ast.get_docstring(node) for node in classes), None)
    return Described(docstring or _heading(path), found)


def _heading(path: Path) -> str:
    """The comment that a file begins with."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    comments = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.lstrip("# ") for line in comments if "@package" not in line)


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


def _ranges(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """What the annotation of each field allows, in words; empty where it has no range."""
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            yield line.target.id, _range(line.annotation)


def _range(annotation: ast.expr) -> str:
    """Fraction | None -> "null or a fraction in [0, 1]"; tuple[Fraction, ...] -> "a list, each
    ..."; Annotated[int, at_least(2)] -> "2 or more"."""
    if isinstance(annotation, ast.Name):
        return " and ".join(each.words for each in ranges_of(getattr(ranges, annotation.id, None)))
    if isinstance(annotation, ast.BinOp):
        sides = [_range(annotation.right), _range(annotation.left)]  # null first
        return " or ".join(sides) if all(sides) else ""
    if isinstance(annotation, ast.Constant):
        return "null" if annotation.value is None else ""
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        each = annotation.slice.elts
        if ast.unparse(annotation.value) == "tuple":
            return f"a list, each {inner}" if (inner := _range(each[0])) else ""
        return _made_range(each[-1])
    return ""


def _made_range(call: ast.expr) -> str:
    """The words of at_least(2), above(0), within("[0, 1]") or Range("...", ...)."""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return ""
    arguments = [each.value for each in call.args if isinstance(each, ast.Constant)]
    if call.func.id == "Range":
        return str(arguments[0])
    if call.func.id not in ("at_least", "above", "within"):
        return ""
    made: Range = getattr(ranges, call.func.id)(*arguments)
    return made.words


def _choices(node: ast.ClassDef) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The names of fields that are Literal, and true or false for those that are bool."""
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        names = []
        for part in ast.walk(line.annotation):
            if isinstance(part, ast.Subscript) and ast.unparse(part.value) == "Literal":
                items = ast.walk(part.slice)
                names += [item.value for item in items if isinstance(item, ast.Constant)]
        if isinstance(line.annotation, ast.Name) and line.annotation.id == "bool":
            names = ["true", "false"]
        if names:
            yield line.target.id, tuple(map(str, names))
