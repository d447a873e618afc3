"""A run again from its folder: its config.yaml becomes what Hydra starts from, with overrides as
ever.

A file must not say which code is run: its values are data, its classes are those that
configurations name already.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dimred.errors import UserError
from dimred.runs.config.files import AS_BEFORE, CHOICES, GROUPS, STORED, conf, read
from dimred.runs.config.leaves import leaves

Json = dict[str, Any]
NAME = "run-again"  # of what Hydra starts from, in its store
OF_THE_RUN = ("sparsity", "allocation")  # what a method takes from the run


def register(folder: Path, own: Path | None = None) -> str:
    """Give Hydra the configuration of a run; its name there. UserError if there is none, or one
    that is not data."""
    from hydra.core.config_store import ConfigStore

    stored = read_config(folder)
    require_data(stored, folder, own)
    names = choices(stored, folder)
    main = yaml.safe_load((conf() / "config.yaml").read_text())
    for entry in main["defaults"]:
        for group in GROUPS.keys() & dict_of(entry).keys():
            if stored.get(group):
                entry[group] = f"{STORED}{names[group]}"
    method = stored["method"]
    main |= {key: stored[key] for key in main.keys() & stored.keys()}
    main |= {"sparsity": method.get("sparsity", stored["sparsity"])}
    if (outputs := outputs_of(folder)) is not None:
        main["outputs"] = str(outputs)
    store = ConfigStore.instance()
    store.store(name=NAME, node=main)
    for group, node in groups(stored, names).items():
        store.store(
            group=f"{group}/{STORED.strip('/')}", name=names[group], node=node, package=group
        )
    return NAME


def read_config(folder: Path) -> Json:
    path = folder / "config.yaml"
    try:
        stored = yaml.safe_load(path.read_bytes())
        for group in GROUPS.keys() - {"basis"}:
            stored[group]["_target_"]
        for key in ("sparsity", "seed", "data_dir"):
            stored[key]
    except OSError as error:
        raise UserError(
            f"{folder} is no run: its config.yaml cannot be read ({error.strerror}). "
            "Runs are in outputs/runs/DATASET/MODEL/"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError) as error:
        raise UserError(f"{path} describes no run ({' '.join(str(error).split())})") from error
    return stored


def require_data(stored: Json, folder: Path, own: Path | None) -> None:
    """UserError if values would be looked up or computed, or name classes that no configuration
    names; or if there are settings of Hydra, whose logging, for one, calls whatever it is told
    to."""
    known = set(targets(conf()))
    if own:
        known |= set(targets(own))
    for keys, value in leaves(stored):
        said = [key for key in keys if key in ("defaults", "hydra")]
        if "${" in f"{keys}{value}":
            said.append(f"{keys[-1]}: {value}")
        if said:
            raise UserError(f"{folder}/config.yaml says {said[0]}; a run's values are plain")
        if "_target_" in keys and str(value) not in known:
            raise UserError(
                f"{folder}/config.yaml asks for {value}, which no configuration names. If it is "
                "your own, add --config-dir DIR, the folder with its configuration"
            )


def targets(place: Path) -> Iterator[str]:
    for path in place.glob("*/*.y*ml"):
        yield from re.findall(r"_target_:\s*([\w.]+)", path.read_text())


def choices(stored: Json, folder: Path) -> dict[str, str]:
    """The names of the files that the run was made of: from config.yaml, or, of an older run, from
    its result or its place."""
    where = folder.resolve()
    place = {
        "dataset": where.parent.parent.name,
        "model": where.parent.name,
        "method": re.sub(r"(-s[^-]+(e-\d+)?)?-seed\d+-\w+$", "", where.name),
    }
    try:
        result = json.loads((folder / "result.json").read_bytes())
    except (OSError, ValueError):
        result = {}
    found = (
        dict.fromkeys(GROUPS, "unknown") | place | dict_of(result) | dict_of(stored.get(CHOICES))
    )
    return {group: str(found[group]) for group in GROUPS}


def groups(stored: Json, names: Mapping[str, str]) -> dict[str, Json]:
    """The groups' values, as their files would say them: what they took from the run, they take
    again."""
    found = {
        group: with_newer_fields(group, names[group], dict(stored[group]))
        for group in GROUPS
        if stored.get(group)
    }
    for key in OF_THE_RUN:
        if key in found["method"]:
            found["method"][key] = f"${{{key}}}"
    if isinstance(allocation := stored["method"].get("allocation"), dict):
        found["allocation"] = allocation
    data_dir = str(stored["data_dir"])
    for key, value in found["dataset"].items():
        if isinstance(value, str) and f"{value}/".startswith(f"{data_dir}/"):
            found["dataset"][key] = f"${{data_dir}}{value[len(data_dir) :]}"
    return found


def with_newer_fields(group: str, name: str, node: Json) -> Json:
    """Fields that dimred's file has and an older run has not, with the value of what was done
    then."""
    if not (conf() / group / f"{name}.yaml").exists():
        return node
    listed = read(group, name)
    newer = AS_BEFORE.get(group, {}).keys() & listed.keys() - node.keys()
    return node | {key: AS_BEFORE[group][key] for key in newer}


def outputs_of(folder: Path) -> Path | None:
    """OUTPUTS of OUTPUTS/runs/DATASET/MODEL/RUN, as it is typed; None where the folder lies
    elsewhere."""
    typed = folder if len(folder.parts) > 4 else folder.absolute()
    parents = typed.parents
    return parents[3] if len(parents) > 3 and parents[2].name == "runs" else None


def dict_of(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
