"""Run every check on a method and report the outcomes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal, NamedTuple

from dimred.conformance.checks import CHECKS
from dimred.conformance.exceptions import EXCEPTIONS
from dimred.conformance.expectations import NotApplicable, captured_warnings
from dimred.conformance.make import Make
from dimred.conformance.trainings import NoTrainableNet

log = logging.getLogger("dimred")


class Finding(NamedTuple):
    check: str
    outcome: Literal["passes", "fails", "exception", "not applicable"]
    # the failed expectation, or the reason of an exception; the promise of a check that passes
    why: str


def examine(make: Make) -> Iterator[Finding]:
    """One finding for each check; only one in all if the method trains no toy net."""
    for name, check in CHECKS.items():
        exception = EXCEPTIONS.get(name, {}).get(make.name)
        try:
            with captured_warnings():
                check(make)
        except NoTrainableNet as error:
            yield Finding(name, "fails", str(error))
            return
        except NotApplicable as reason:
            yield Finding(name, "not applicable", str(reason))
        except Exception as error:
            log.debug("%s", name, exc_info=error)
            why = (
                str(error)
                if isinstance(error, AssertionError)
                else f"{type(error).__name__}: {error}"
            )
            yield (
                Finding(name, "exception", exception)
                if exception
                else Finding(name, "fails", " ".join(why.split()))
            )
        else:
            yield Finding(name, "passes", " ".join((check.__doc__ or "").split()))
