"""The conformance suite: what every method promises (checks.py), checked without a test of its own
by `dimred check NAME`."""

from dimred.conformance.checks import CHECKS
from dimred.conformance.exceptions import EXCEPTIONS, NOT_EXAMINED
from dimred.conformance.expectations import NotApplicable
from dimred.conformance.make import Make
from dimred.conformance.report import Finding, examine

__all__ = ["CHECKS", "EXCEPTIONS", "NOT_EXAMINED", "Finding", "Make", "NotApplicable", "examine"]
