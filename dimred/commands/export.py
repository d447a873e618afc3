"""dimred export: a trained network for other programs."""
from __future__ import annotations

from pathlib import Path

from dimred.commands.arguments import flag
from dimred.errors import UserError


def export(arguments: list[str]) -> int:
    trust = flag(arguments, "--trust")
    if len(arguments) != 2:
        raise UserError(f"usage: dimred export RUN FILE (got {len(arguments)} arguments)")
    from dimred.build import load_net
    from dimred.record import write_tensors

    net = load_net(Path(arguments[0]).expanduser(), trust)
    write_tensors(Path(arguments[1]).expanduser(), net.state_dict())
    print(f"{arguments[1]}: {len(net.state_dict())} tensors; read it with safetensors.torch.load_file")
    return 0

