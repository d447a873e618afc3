"""dimred import: a compact file as a plain state dict."""
from __future__ import annotations

from pathlib import Path

from dimred.commands.arguments import flag
from dimred.errors import UserError


def import_compact(arguments: list[str]) -> int:
    trust = flag(arguments, "--trust")
    if len(arguments) != 2:
        raise UserError(f"usage: dimred import FILE OUT [--trust] (got {len(arguments)} arguments)")
    from dimred.compact import load_compact
    from dimred.record import write_tensors

    state = load_compact(arguments[0], trust).state_dict()
    write_tensors(Path(arguments[1]).expanduser(), state)
    print(f"{arguments[1]}: {len(state)} tensors; read it with safetensors.torch.load_file")
    return 0
