"""What Hydra composes: of conf/, and of a folder of one's own (--config-dir)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimred.errors import UserError, first_line, is_short_form, nearest
from dimred.runs.config.files import EXPERIMENT, GROUPS, conf, names, unknown_name
from dimred.runs.config.leaves import leaves

if TYPE_CHECKING:
    from omegaconf import DictConfig

#: what a package adds to Hydra: pip install hydra-NAME
PLUGINS = {
    "launcher": {
        "submitit": "submitit-launcher",
        "joblib": "joblib-launcher",
        "ray_aws": "ray-launcher",
        "rq": "rq-launcher",
    },
    "sweeper": {"optuna": "optuna-sweeper", "ax": "ax-sweeper", "nevergrad": "nevergrad-sweeper"},
}
#: what needs no package
INCLUDED = {"launcher": ("basic", "packed", "slurm", "ray"), "sweeper": ("basic",)}


def composed(overrides: Sequence[str], folder: Path | None = None) -> DictConfig:
    """The configuration of `dimred train OVERRIDES --config-dir FOLDER`, not yet checked. UserError
    for what is unknown."""
    return composed_with_choices(overrides, folder)[0]


def composed_with_choices(
    overrides: Sequence[str], folder: Path | None = None
) -> tuple[DictConfig, dict[str, Any]]:
    """The same, with the name of the file that each group is from."""
    import hydra
    from omegaconf import open_dict

    added = [search_path(folder)] if folder else []
    with explaining(), own_hydra():
        cfg = hydra.compose("config", [*overrides, *added], return_hydra_config=True)
    chosen = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, {group: chosen.get(group) for group in GROUPS if group in cfg}


def launcher_and_folder(overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The options of the launcher, and the folder of a sweep that begins now."""
    import hydra
    from omegaconf import OmegaConf

    with explaining():
        with own_hydra():
            cfg = hydra.compose("config", [*overrides], return_hydra_config=True)
        options: Any = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    del options["_target_"]
    return options, cfg.hydra.sweep.dir


@contextmanager
def own_hydra() -> Iterator[None]:
    """Hydra on dimred's configurations. A program that uses Hydra itself has its own back
    afterwards."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    of_the_program = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = of_the_program


def plain(overrides: Sequence[str], folder: Path | None = None) -> dict[str, Any]:
    """The same as nested dictionaries, interpolations as they are written."""
    from omegaconf import OmegaConf

    cfg: Any = OmegaConf.to_container(composed(overrides, folder), resolve=False)
    return cfg


def resolved(cfg: dict[str, Any]) -> dict[str, Any]:
    """With every interpolation replaced by its value. UserError for what names nothing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found: Any = OmegaConf.to_container(OmegaConf.create(cfg), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{first_line(error)}, in {error.full_key}") from error
    return found


def own_folder(given: str) -> Path:
    """A folder of configurations of one's own. UserError if there is none, or a file has the name
    of one of dimred's: Hydra would take dimred's."""
    folder = Path(given).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(
            f"no folder {given}. Give --config-dir one that holds method/NAME.yaml, "
            "dataset/NAME.yaml, ..."
        )
    for path in sorted(folder.glob("**/*.y*ml")):
        name = path.relative_to(folder).with_suffix(".yaml")
        if (conf() / name).exists():
            raise UserError(
                f"{path} would not be used: dimred has a {name}. "
                + (
                    f"To run a run again: dimred train --from {given}"
                    if is_run(folder)
                    else "Give it another name"
                )
            )
    return folder


def is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("result.json", "log.txt", "metrics.jsonl"))


def search_path(folder: Path) -> str:
    return f"hydra.searchpath=[{quoted(f'file://{folder}')}]"


def quoted(text: str, always: bool = False) -> str:
    """As a value for Hydra: quoted where its grammar would read more than letters into it."""
    if not always and re.fullmatch(r"[A-Za-z0-9_/.:~-]+", text):
        return text
    # Hydra reads a backslash as an escape only before a quote: there, and before the closing quote,
    # it is doubled
    escaped = re.sub(r'(\\*)(")', r"\1\1\\\2", text)
    ending = re.search(r"\\*$", escaped)
    return f'"{escaped}{ending[0] if ending else ""}"'


# -- errors --------------------
@contextmanager
def explaining() -> Iterator[None]:
    """Within the block, what Hydra raises for the command line is a UserError."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explained(error)) from error
    except ValueError as error:
        key = re.fullmatch(r"invalid literal for int\(\) with base 10: '(.*)'", str(error))
        if not key:
            raise
        raise UserError(
            f"there is no key {key[1]!r} in a list. Write the whole list: KEY=[A,B]"
        ) from error


def explained(error: Exception) -> str:
    """What was got, what is allowed, what to do, from what Hydra says about the command line."""
    text = str(error) or str(error.__cause__)
    options = getattr(error, "options", None)
    if plugin := re.search(r"Could not find 'hydra/(launcher|sweeper)/([^']*)'", text):
        return missing_plugin(*plugin.groups())
    if options and (missing := re.search(r"Could not find '([^'/]+)/([^']*)'", text)):
        group, name = missing.groups()
        return unknown_name(group, name, options)
    if missing := re.search(r"Could not load '([^'/]+)/([^']*)'", text):  # in a list: [A,B]
        group, name = missing.groups()
        return unknown_name(group, name, names(group))
    if f"Could not override '{EXPERIMENT}'" in text:
        return f"{EXPERIMENT} takes a plus: +{EXPERIMENT}=NAME, as it is added to the configuration"
    if key := re.search(r"Could not override '([^']+)'", text):
        group, _, name = key[1].rpartition(".")
        # the group as it is composed
        node = getattr(error.__cause__, "parent_node", None) or ()
        if not node:
            return f"unknown key {key[1]}: {group} is a single value, there is nothing inside it"
        if elsewhere := same_word(name, node._get_root()):
            return f"unknown key {key[1]}. Did you mean {' or '.join(elsewhere)}?"
        allowed = [str(k) for k in node if k not in ("_target_", "hydra")]
        owner = str(node.get("_target_", "")).rpartition(".")[2]
        whose = f" These are the keys of {owner}." if owner else ""
        return f"unknown key {key[1]}. {nearest(name, allowed)}{whose}"
    if several := re.search(r"Ambiguous value for argument '(.+)'", text):
        name, _, value = several[1].partition("=")
        return (
            f"{several[1]} names several values. For a run with each, add -m: dimred train -m "
            f"{several[1]}. A list is written in brackets, KEY=[A,B]; one value with a comma in it "
            f"in two kinds of quotes, {shell_quoted(name, value)}"
        )
    if re.search("Multiple values for|Could not append", text):
        return f"{text.split('. ')[0]}. Leave out the +, which is for keys that do not exist yet"
    if place := re.search(r"Error merging override ((\S+)\.\d+=\S*)", text):
        return f"{place[1]}: the list has no such entry. Write the whole list: {place[2]}=[A,B]"
    if override := getattr(error, "override", None):
        return not_understood(str(override))
    return f"{text.splitlines()[0]} (see dimred train --help)"


def same_word(word: str, cfg: DictConfig) -> list[str]:
    """The keys inside the groups of a configuration that end in this word, or in a short or long
    form of it: recipe.lr for lr and for learning_rate."""
    from omegaconf import OmegaConf

    found = []
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    for path, _ in leaves({group: plain[group] for group in GROUPS}, depth=2):
        if len(path) > 1 and is_short_form(word, path[-1]):
            found.append(".".join(path))
    return found


def not_understood(override: str) -> str:
    key, equals, value = override.partition("=")
    quotes = (
        ". A value with other signs than letters, digits and ._-/ takes two kinds of quotes: "
        f"{shell_quoted(key, value)}"
        if equals and value
        else ""
    )
    return f"cannot understand {override!r}. Write KEY=VALUE, and a list as KEY=[A,B]{quotes}"


def shell_quoted(key: str, value: str) -> str:
    """An override with quotes for Hydra within quotes for the shell: 'dataset.path="a=b"'."""
    inner = value.strip("\"'").replace('"', '\\"').replace("'", "'\\''")
    return f"'{key}=\"{inner}\"'"


def missing_plugin(kind: str, name: str) -> str:
    known = PLUGINS[kind]
    for first, package in known.items():
        if name.startswith(first):
            return (
                f"hydra/{kind}={name} needs a package that is not installed: "
                f"pip install hydra-{package}"
            )
    return (
        f"unknown hydra/{kind} {name!r}. {nearest(name, [*INCLUDED[kind], *known])} All but "
        f"{' and '.join(INCLUDED[kind])} are packages: pip install hydra-NAME-{kind}"
    )
