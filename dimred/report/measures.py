"""What a table can show of a run, and how it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A number of a result, in the unit that is printed; None where the result has none (of an
    older version).

    better: +1 if more is better, -1 if less is, 0 if neither
    """

    label: str
    value: Callable[[Result], float | None]
    better: int
    digits: int | None = 2  # after the point; None: three figures and a prefix (k, M, G, ...)
    unit: str = ""
    interval: bool = False  # worth one, and the number of seeds

    def text(self, mean: float, std: float | None = None) -> str:
        """12.30 ± 0.25; a number without spread alone."""
        factor, prefix = (1.0, "") if self.digits is not None else prefixed(mean)
        digits = (
            self.digits
            if self.digits is not None
            else max(0, 3 - len(str(int(abs(mean) / factor))))
        )
        spread = f"{(std or 0.0) / factor:.{digits}f}"
        seen = f" ± {spread}" if (self.interval and std is not None) or float(spread) else ""
        unit = f" {prefix}{self.unit}".rstrip()
        return f"{mean / factor:,.{digits}f}{seen}{unit}"

    def signed(self, difference: float) -> str:
        return f"{difference:+,.{self.digits if self.digits is not None else 2}f}".replace("-", "−")


def prefixed(value: float) -> tuple[float, str]:
    for power, prefix in enumerate(("", "k", "M", "G", "T", "P", "E")):
        if abs(value) < 1000 ** (power + 1) or prefix == "E":
            return 1000.0**power, prefix
    raise AssertionError


def is_number(value: Any) -> bool:
    """Neither true, false, infinite, nor nan."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e100


def number(result: Result, name: str) -> float | None:
    """None for whatever else may stand there: files come from anywhere."""
    return value if is_number(value := result.get(name)) else None


def not_numbers(result: Result) -> list[str]:
    """What stands where a number belongs."""
    return [
        f"{name}={str(result[name])[:20]}"
        for name in (*MEASURES, "total")
        if result.get(name) is not None and number(result, name) is None
    ]


def key(name: str, factor: float = 1.0) -> Callable[[Result], float | None]:
    return lambda result: None if (value := number(result, name)) is None else factor * value


def left_to_cut(result: Result) -> float:
    """The share of the weights to be pruned that the method itself had not pruned; 0 where it is
    not known."""
    measures = result.get("measures")
    return (number(measures, "left_to_cut") or 0.0) if isinstance(measures, dict) else 0.0


def error(result: Result) -> float | None:
    return None if (value := number(result, "test_accuracy")) is None else 100 * (1 - value)


def compression(result: Result) -> float | None:
    total, dim = number(result, "total"), number(result, "dim")
    return total / dim if total and dim else None


MEASURES = {
    "test_accuracy": Measure("test accuracy %", key("test_accuracy", 100), +1, interval=True),
    "test_error": Measure("test error %", error, -1, interval=True),
    "best_val_test_accuracy": Measure(
        "test accuracy % at the best validation epoch",
        key("best_val_test_accuracy", 100),
        +1,
        interval=True,
    ),
    "val_accuracy": Measure("validation accuracy %", key("val_accuracy", 100), +1, interval=True),
    "dim": Measure("dim", key("dim"), 0, 0),
    "trained_ever": Measure("weights ever trained", key("trained_ever"), 0, 0),
    "trained_to_the_end": Measure("weights trained to the end", key("trained_to_the_end"), 0, 0),
    "nonzero": Measure("nonzero weights", key("nonzero"), 0, 0),
    "density": Measure("density", key("density"), 0, 4),
    "compression": Measure("weights / dim", compression, 0, 1),
    "trained_parameters": Measure("trained parameters", key("trained_parameters"), 0, 0),
    "storage_bytes": Measure("storage", key("storage_bytes"), -1, None, "B"),
    "compact_file_bytes": Measure("compact file", key("compact_file_bytes"), -1, None, "B"),
    "training_flops": Measure("training FLOPs", key("training_flops"), -1, None),
    "training_flops_relative": Measure("of dense training", key("training_flops_relative"), -1, 3),
    "inference_flops": Measure("inference FLOPs", key("inference_flops"), -1, None),
    "inference_flops_relative": Measure(
        "of dense inference", key("inference_flops_relative"), -1, 3
    ),
    "steps": Measure("steps", key("steps"), 0, 0),
    "seconds": Measure("seconds", key("seconds"), 0, 1),
}
