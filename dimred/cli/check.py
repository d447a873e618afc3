"""dimred check: the conformance suite, for one method."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dimred.cli.arguments import flag, option
from dimred.errors import UserError, nearest
from dimred.runs.config.composition import composed, own_folder
from dimred.runs.printing import table
from dimred.training.run_name import PROGRESS


def check(arguments: list[str]) -> int:
    """Exit status 1 if the method breaks a promise."""
    usage = "usage: dimred check METHOD [FIELD=VALUE ...] [basis=NAME] [--config-dir DIR]"
    folder = option(arguments, "--config-dir")
    flag(arguments, "--config-dir")
    if (
        not arguments
        or "=" in arguments[0]
        or not all("=" in argument for argument in arguments[1:])
    ):
        raise UserError(f"{usage} (got {' '.join(arguments) or 'no method'})")
    name, fields = arguments[0], dict(argument.split("=", 1) for argument in arguments[1:])
    logging.getLogger(PROGRESS).disabled = True  # of hundreds of small trainings
    from dimred.conformance import NOT_EXAMINED, Make, examine

    if name in NOT_EXAMINED:
        raise UserError(
            f"{name} cannot be checked: {NOT_EXAMINED[name]}. Check another method, such as random"
        )
    cfg = compose_method(name, fields, fields.pop("basis", "none"), folder)
    findings = list(examine(Make(name, cfg, fields)))
    print(table(("check", "outcome", "why"), findings))
    failed = sum(finding.outcome == "fails" for finding in findings)
    print(f"{name}: {len(findings)} check{'s' * (len(findings) > 1)}, {failed} failed")
    return 1 if failed else 0


def compose_method(name: str, fields: Mapping[str, str], basis: str, folder: str | None) -> Any:
    """The configuration of a run with a method of conf/method or of the folder, or with a class of
    one's own."""
    overrides = [f"method={name}", *(f"method.{field}={value}" for field, value in fields.items())]
    if "." in name:
        from dimred.runs.config.schema import required, resolve

        _, takes = resolve(name, "method")
        for key in set(fields) - set(takes):
            raise UserError(f"unknown key method.{key}. {nearest(key, takes)}")
        given = {key: f"${{{key}}}" for key in ("sparsity", "allocation") if key in takes} | dict(
            fields
        )
        if missing := [key for key in required(takes) if key not in given]:
            raise UserError(
                f"{name} needs a value for {', '.join(missing)}. Give it: dimred check {name} "
                + " ".join(
                    [*(f"{k}={v}" for k, v in fields.items()), *(f"{k}=..." for k in missing)]
                )
            )
        overrides = [
            "~method",
            f"+method._target_={name}",
            *(f"+method.{key}={value}" for key, value in given.items()),
        ]
    overrides.append(f"basis={basis}")
    return composed(overrides, own_folder(folder) if folder else None)
