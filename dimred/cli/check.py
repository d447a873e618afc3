"""dimred check: run the conformance suite on one method."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dimred.cli.commands import Parser, add_config_dir
from dimred.errors import UserError, counted, nearest
from dimred.runs.config.composition import composed, own_folder
from dimred.runs.printing import table
from dimred.training.sweep_label import PROGRESS


def parser() -> Parser:
    parser = Parser(
        "check",
        "METHOD [FIELD=VALUE ...] [basis=NAME] [--config-dir DIR]",
        summary="Check that a method keeps the promises of all methods: exact counts, untouched "
        "frozen weights, resuming to the same bits.",
    )
    parser.add_argument("method", metavar="METHOD", help="a name, or your package.Class")
    parser.add_argument(
        "fields", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the method"
    )
    add_config_dir(parser)
    return parser


def run(arguments: list[str]) -> int:
    """Exit status 1 if the method breaks a promise."""
    parsed = parser()
    given = parsed.parse(arguments)
    if "=" in given.method or not all("=" in field for field in given.fields):
        parsed.error(f"got {' '.join([given.method, *given.fields])}")
    name, fields = given.method, dict(field.split("=", 1) for field in given.fields)
    from dimred.conformance import NOT_EXAMINED, Make, examine

    if name in NOT_EXAMINED:
        raise UserError(
            f"{name} cannot be checked: {NOT_EXAMINED[name]}. Check another method, such as random"
        )
    cfg = compose_method(name, fields, fields.pop("basis", "none"), given.config_dir)
    with without_progress():
        findings = list(examine(Make(name, cfg, fields)))
    print(table(("check", "outcome", "why"), findings))
    failed = sum(finding.outcome == "fails" for finding in findings)
    print(f"{name}: {counted(len(findings), 'check')}, {failed} failed")
    return 1 if failed else 0


@contextmanager
def without_progress() -> Iterator[None]:
    """Within the block, hundreds of small trainings show no bars and log no epochs."""
    logger = logging.getLogger(PROGRESS)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def compose_method(name: str, fields: Mapping[str, str], basis: str, folder: str | None) -> Any:
    """The configuration of a run with a method of conf/method or of the folder, or with a class
    given by its path."""
    if "." in name:
        chosen = choose_class(name, fields)
    else:
        chosen = [f"method={name}", *overrides("method", fields)]
    return composed([*chosen, f"basis={basis}"], own_folder(folder) if folder else None)


def choose_class(name: str, fields: Mapping[str, str]) -> list[str]:
    """Overrides that make a class the method. UserError for unknown or missing fields."""
    from dimred.fields.targets import resolve
    from dimred.runs.config.schema import required

    target, takes = resolve(name, "method")
    for key in set(fields) - set(takes):
        raise UserError(f"unknown key method.{key}. {nearest(key, takes)}")
    of_the_run = {key: f"${{{key}}}" for key in ("sparsity", "allocation") if key in takes}
    given = of_the_run | dict(fields)
    missing = [key for key in required(target, takes) if key not in given]
    if missing:
        words = [f"{key}={value}" for key, value in fields.items()]
        words += [f"{key}=..." for key in missing]
        raise UserError(
            f"{name} needs a value for {', '.join(missing)}. Give it: dimred check {name} "
            + " ".join(words)
        )
    return ["~method", f"+method._target_={name}", *overrides("+method", given)]


def overrides(group: str, fields: Mapping[str, str]) -> list[str]:
    return [f"{group}.{field}={value}" for field, value in fields.items()]
