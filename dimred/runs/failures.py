"""What the user reads of a run that failed."""

from __future__ import annotations

import re

import torch

from dimred.errors import NO_MEMORY, OutOfMemory, UserError


def is_out_of_memory(error: BaseException) -> bool:
    """Of the GPU or of the machine, whichever way torch says it."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or bool(
        re.search(NO_MEMORY, str(error))
    )


def is_of_the_machine(error: BaseException) -> bool:
    """Whether memory or the GPU failed, and no model or data set is to blame."""
    return is_out_of_memory(error) or isinstance(error, torch.AcceleratorError)


def readable(error: Exception) -> UserError:
    """Any error as a UserError: what went wrong and what to do, in one message."""
    if isinstance(error, UserError):
        return error
    text = str(error)
    first = text.partition("\n")[0]  # torch adds the frames of its own stack
    if is_out_of_memory(error):
        return OutOfMemory(
            f"out of memory ({first or 'no more to be had'}). Choose a smaller "
            "recipe.batch_size or model, or recipe.bf16=true; or free memory and repeat the "
            "command to resume from the last checkpoint"
        )
    if isinstance(error, torch.AcceleratorError):
        return UserError(
            f"the GPU failed ({first}). Repeat the command to resume from the last checkpoint; if "
            "it fails again, nvidia-smi shows whether the GPU is there, and device=cpu whether "
            "the model or the data is at fault"
        )
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return UserError(f"{error.strerror or text}{where}. What was written before is intact")
    return UserError(
        f"unexpected {type(error).__name__}: {first}. Repeat the command with --debug to see where"
    )
