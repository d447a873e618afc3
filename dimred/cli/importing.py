"""dimred import: write the plain state dict of a compact file."""

from __future__ import annotations

from dimred.cli.commands import Parser, add_trust
from dimred.errors import counted


def parser() -> Parser:
    parser = Parser(
        "import",
        "FILE OUT [--trust]",
        summary="Read a compact file and write the state dict of the plain model.",
    )
    parser.add_argument("file", metavar="FILE", help="written by dimred export --format compact")
    parser.add_argument("out", metavar="FILE", help="OUT, the safetensors file to write")
    add_trust(parser)
    return parser


def run(arguments: list[str]) -> int:
    given = parser().parse(arguments)
    from dimred.cli.export import output
    from dimred.runs.compact_file import load_compact
    from dimred.storage.tensors import write_tensors

    path = output(given.out, given.file)
    state = load_compact(given.file, given.trust).state_dict()
    write_tensors(path, state)
    print(f"{path}: {counted(len(state), 'tensor')}; read it with safetensors.torch.load_file")
    return 0
