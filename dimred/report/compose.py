"""The configuration of `dimred train OVERRIDES`, composed fast for hundreds of cells."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dimred.errors import UserError, nearest, require
from dimred.report.remote import Place
from dimred.runs.config import composition
from dimred.runs.config.files import GROUPS, conf, description, require_plain_names
from dimred.runs.config.overrides import require_one_way

Json = dict[str, Any]
#: as typed, in this order: {"method": "rigl", "method.update_every": "50"}
Overrides = dict[str, str]


#: folders of the user's own configurations, beside conf/ (--config-dir)
folders: list[Path] = []


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads 1e-4 as a number, as OmegaConf does, and refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Json:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(
                None, None, f"{twice[0]!r} is there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


class Verbatim(Loader):
    """Its numbers keep the text that they were written as: 94.80."""


class Written(float):
    text: str

    def __str__(self) -> str:
        return self.text


def written(loader: Verbatim, node: yaml.ScalarNode) -> Written:
    value = Written(loader.construct_yaml_float(node))
    value.text = node.value
    return value


Verbatim.add_constructor("tag:yaml.org,2002:float", written)


def load(text: str | bytes, loader: type[Loader] = Loader) -> Any:
    """YAML as plain data: no tag constructs an object."""
    return yaml.load(text, loader)


def split(words: Iterable[str]) -> Overrides:
    """Overrides as on the command line: method=rigl, sparsity=0.95. UserError for a word that is
    not KEY=VALUE."""
    pairs = [word.partition("=") for word in words]
    for key, equals, value in pairs:
        if not equals or not re.fullmatch(r"[\w./]+", key):
            raise UserError(
                f"cannot understand {key + equals + value!r}. Write KEY=VALUE, and a list as "
                "KEY=[A,B]"
            )
    return {key: value for key, _, value in pairs}


def composed(overrides: Overrides) -> Json:
    """The description of the run (see runs.config.files). UserError for an unknown name or key."""
    require_one_way(f"{key}={value}" for key, value in overrides.items())
    groups = [(key, value) for key, value in overrides.items() if key in GROUPS]
    cfg = dict(chosen(tuple(groups)))
    for key, value in overrides.items():
        if key not in GROUPS:
            put(cfg, key, load(value))
    return description(composition.resolved(cfg))


@cache
def chosen(groups: tuple[tuple[str, str], ...]) -> Json:
    """The composition of these files by Hydra, with unresolved interpolations. Cached, since many
    cells choose the same files."""
    for group, name in groups:
        require_plain_names({group: name})
    names = dict(groups)
    method = names.get("method", ALONE)
    values = values_alone(method)
    if values and method != ALONE:
        return chosen(tuple((names | {"method": ALONE}).items())) | {"method": values}
    folder = folders[0] if folders else None
    return composition.plain(
        [*(f"{group}={name}" for group, name in groups), "data_dir=data_dir"], folder
    )


ALONE = "dense"  # a method whose file chooses no other files


def values_alone(method: str) -> Json | None:
    """The values of a method whose file chooses no other files, or None.

    Only these values tell the compositions of two such methods apart, so one composition serves all
    of them. Hydra takes 0.07 s for each."""
    paths = [place / "method" / f"{method}.yaml" for place in (conf(), *folders)]
    path = next(filter(Path.exists, paths), None)
    if path is None or "@package" in path.read_text():
        return None
    values = read_yaml(path)
    return None if "defaults" in values else values


def put(cfg: Json, key: str, value: Any) -> None:
    """Set an existing value. Compositions share their dictionaries, so those on the way to the
    value are copied."""
    *path, last = key.split(".")
    for depth, step in enumerate(path):
        if not isinstance(cfg.get(step), dict):
            raise unknown(path[: depth + 1], cfg)
        cfg[step] = cfg = dict(cfg[step])
    if last not in cfg:
        raise unknown([*path, last], cfg)
    cfg[last] = value


def unknown(path: list[str], among: Json) -> UserError:
    allowed = among.keys() - {"_target_"}
    return UserError(f"unknown key {'.'.join(path)}. {nearest(path[-1], allowed)}")


def size_of(recipe: Json) -> tuple[str, float]:
    """The length of training: ("epochs", 160). UserError if it is not a number."""
    name = "epochs" if recipe.get("steps") is None else "steps"
    size = recipe[name]
    require(
        isinstance(size, (int, float)) and not isinstance(size, bool) and 0 <= size < 1e15,
        f"recipe.{name}",
        size,
        "a number, 0 or more",
    )
    return name, size


def flat(node: Json, prefix: str = "") -> Json:
    """Flatten nested dictionaries; keys are joined by dots."""
    found: Json = {}
    for key, value in node.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def read_yaml(path: Path, loader: type[Loader] = Loader) -> Any:
    """UserError if the file cannot be read or is not YAML."""
    return parse_yaml(read_bytes(path), path, loader)


def read_bytes(path: Place) -> bytes:
    """UserError if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def parse_yaml(text: bytes, name: object, loader: type[Loader] = Loader) -> Any:
    """UserError, with the name of the file, if this is not YAML."""
    try:
        return load(text, loader)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise unreadable(name, error) from None


def unreadable(name: object, error: Exception) -> UserError:
    return UserError(f"{name} cannot be read ({' '.join(str(error).split())})")
