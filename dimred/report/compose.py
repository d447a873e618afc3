"""What `dimred train OVERRIDES` would run, and how a table's settings may be changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dimred.errors import UserError, nearest, require
from dimred.runs.config import composition
from dimred.runs.config.files import GROUPS, conf, description, require_plain_names
from dimred.runs.config.overrides import require_one_way

Json = dict[str, Any]
Overrides = dict[str, str]  # as typed: {"method": "rigl", "method.every": "50"}; in this order


folders: list[
    Path
] = []  # with configurations of one's own, beside conf/ (of the command line: --config-dir)


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads 1e-4 as the number that it is, as OmegaConf does, and no key twice."""

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
    """Its numbers know how they were written: 94.80."""


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
    """YAML, data alone: no tag makes objects."""
    return yaml.load(text, loader)


def split(words: Iterable[str]) -> Overrides:
    """Overrides as on the command line: method=rigl, sparsity=0.95. UserError for what is no
    KEY=VALUE."""
    pairs = [word.partition("=") for word in words]
    for key, equals, value in pairs:
        if not equals or not re.fullmatch(r"[\w./]+", key):
            raise UserError(
                f"cannot understand {key + equals + value!r}. Write KEY=VALUE, and a list as KEY=[A,B]"
            )
    return {key: value for key, _, value in pairs}


def composed(overrides: Overrides) -> Json:
    """The description (dimred.runs.config.files.description) of the run. UserError for an unknown name or
    key."""
    require_one_way(f"{key}={value}" for key, value in overrides.items())
    cfg = dict(chosen(tuple((key, value) for key, value in overrides.items() if key in GROUPS)))
    for key, value in overrides.items():
        if key not in GROUPS:
            put(cfg, key, load(value))
    return description(composition.resolved(cfg))


@cache
def chosen(groups: tuple[tuple[str, str], ...]) -> Json:
    """What Hydra composes of these files, its interpolations as they are written. Once for all
    cells that have them."""
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


ALONE = "dense"  # a method that chooses no other files


def values_alone(method: str) -> Json | None:
    """The values of a method that chooses no other files: nothing but they tell its composition
    from that of another such method. That saves most of the 0.07 s which Hydra takes for each."""
    places = [place / "method" / f"{method}.yaml" for place in (conf(), *folders)]
    path = next((path for path in places if path.exists()), None)
    if path is None or "@package" in path.read_text():
        return None
    values = read_yaml(path)
    return None if "defaults" in values else values


def put(cfg: Json, key: str, value: Any) -> None:
    """Set a value that is there. Files are shared between compositions, so what is on the way to it
    is copied."""
    *path, last = key.split(".")
    for depth, step in enumerate(path):
        cfg[step] = cfg = (
            dict(cfg[step]) if isinstance(cfg.get(step), dict) else unknown(path[: depth + 1], cfg)
        )
    if last not in cfg:
        unknown([*path, last], cfg)
    cfg[last] = value


def unknown(path: list[str], among: Json) -> Any:
    raise UserError(
        f"unknown key {'.'.join(path)}. {nearest(path[-1], [k for k in among if k != '_target_'])}"
    )


def size_of(recipe: Json) -> tuple[str, float]:
    """How long training is: ("epochs", 160). UserError if that is no number."""
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
    """Nested dictionaries as one, keys joined by dots."""
    found: Json = {}
    for key, value in node.items():
        found |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        )
    return found


def read_yaml(path: Path, loader: type[Loader] = Loader) -> Any:
    """UserError if the file cannot be read or is no YAML."""
    try:
        return load(path.read_bytes(), loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({' '.join(str(error).split())})") from None


# -- other settings than a table's --------------------
LENGTH = {"recipe.epochs", "recipe.steps"}  # either takes the other's place


@dataclass(frozen=True)
class Change:
    """What makes another table of a published one, so that it has to be said wherever it is
    shown."""

    scale: float = 1.0  # of epochs (or steps), and of the step to rewind to
    overrides: tuple[tuple[str, str], ...] = ()
    seeds: tuple[int, ...] = ()  # where they are not the table's own

    def __str__(self) -> str:
        scaled = [f"recipe shortened to {self.scale:g} of its length"] if self.scale != 1 else []
        seeds = (
            [f"seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))}"]
            if self.seeds
            else []
        )
        return ", ".join([*scaled, *(f"{name}={value}" for name, value in self.overrides), *seeds])

    def applied(self, overrides: Overrides) -> Overrides:
        overrides = overrides | dict(self.overrides)
        if self.scale != 1:
            cell = composed(overrides)
            name, size = size_of(cell["recipe"])
            long = size * self.scale
            overrides = overrides | {
                f"recipe.{name}": f"{long if name == 'epochs' else max(1, round(long)):.6g}"
            }
            if rewind := cell["method"].get("rewind"):  # a point of training, as milestones are
                overrides = overrides | {"method.rewind": f"{round(rewind * self.scale)}"}
        return overrides

    def check(self, owners: Mapping[str, str]) -> None:
        """UserError if it sets what tells cells apart (by what: "the rows"): they would not be what
        they are called."""
        for name, value in self.overrides:
            same = {
                name,
                name.removesuffix("._target_"),
                name.removeprefix("method."),
                *(LENGTH & {name} and LENGTH),
            }
            for key in sorted(same & owners.keys()):
                raise UserError(
                    f"{name}={value} is not allowed: {owners[key]} of the table set {key}, and cells would "
                    "not be what they are called. Leave it out; --only REGEX chooses cells by their name"
                )


AS_PUBLISHED = Change()
