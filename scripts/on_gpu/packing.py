"""Many runs on one GPU."""

from __future__ import annotations

from typing import Any


def packing() -> dict[str, Any]:
    """Throughput of 1, 4, 8 and 16 runs side by side, with and without MPS."""
    return {}
