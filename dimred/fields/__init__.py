"""Types and ranges of the fields of methods, recipes, allocations and bases.

    @dataclass(frozen=True, kw_only=True)
    class Mine(Checked):
        sparsity: Sparsity = 0.9
        update_every: Period = 0.02
        rounds: Annotated[int, at_least(2)] = 5

The annotation of a field states its type and its range. Ranges are checked when a configuration is
read and when an object is made, and help prints them. Needs neither torch nor Hydra.
"""

from dimred.fields.checked import Checked
from dimred.fields.ranges import (
    Count,
    Fraction,
    NotNegative,
    OpenFraction,
    Period,
    Positive,
    PositiveFraction,
    Range,
    Sparsity,
    Step,
    UnitInterval,
    above,
    at_least,
    within,
)

__all__ = [
    "Checked",
    "Count",
    "Fraction",
    "NotNegative",
    "OpenFraction",
    "Period",
    "Positive",
    "PositiveFraction",
    "Range",
    "Sparsity",
    "Step",
    "UnitInterval",
    "above",
    "at_least",
    "within",
]
