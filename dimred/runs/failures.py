"""What the user reads of a run that failed."""

from __future__ import annotations

import re

import torch

from dimred.errors import NO_MEMORY, UserError


def readable(error: Exception) -> UserError:
    """Any error as a UserError: what went wrong and what to do, in one message."""
    if isinstance(error, UserError):
        return error
    text = str(error)
    first = text.partition("\n")[0]  # torch adds the frames of its own stack
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or re.search(NO_MEMORY, text):
        return UserError(
            f"out of memory ({first or 'no more to be had'}). Choose a smaller "
            "recipe.batch_size or model, or recipe.bf16=true; or free memory and repeat the "
            "command to resume from the last checkpoint"
        )
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return UserError(f"{error.strerror or text}{where}. What was written before is intact")
    return UserError(
        f"unexpected {type(error).__name__}: {first}. Repeat the command with --debug to see where"
    )
