"""What a model returns: logits, alone or with other things."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def logits_in(output: Any) -> Any:
    """The logits in what a model returns: `.logits` of an object, "logits" of a dictionary or the
    first of a tuple; the output itself if there are none."""
    if isinstance(output, Mapping) and isinstance(output.get("logits"), Tensor):
        return output["logits"]
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return output[0]
    return output
