"""dimred import: a compact file as a plain state dict."""

from __future__ import annotations

from dimred.cli.arguments import flag
from dimred.errors import UserError


def import_compact(arguments: list[str]) -> int:
    trust = flag(arguments, "--trust")
    if len(arguments) != 2:
        raise UserError(f"usage: dimred import FILE OUT [--trust] (got {len(arguments)} arguments)")
    from dimred.cli.export import output
    from dimred.runs.compact_file import load_compact
    from dimred.storage.files import write_tensors

    path = output(arguments[1], arguments[0])
    state = load_compact(arguments[0], trust).state_dict()
    write_tensors(path, state)
    print(f"{path}: {len(state)} tensors; read it with safetensors.torch.load_file")
    return 0
