"""Every command of dimred: what it takes and what for. Help and completion are made of this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dimred.errors import UserError, nearest


class Option(NamedTuple):
    """value: what it takes, as DIR or one of md|latex|csv; empty for a flag."""

    name: str
    value: str = ""
    help: str = ""

    def shown(self) -> str:
        return f"{self.name} {'NAME' if '|' in self.value else self.value}".rstrip()

    def about(self) -> str:
        names = f"{', '.join(self.value.split('|'))} ({self.help})"
        return names if "|" in self.value else self.help


class Command(NamedTuple):
    """target: package.module:function, which takes what is left of the arguments and returns the
    exit status
    usage: what may follow the name, in each form of the command
    takes: the kinds of what follows, for completion; the last kind is that of all others, too
    more: paragraphs for its help"""

    target: str
    usage: tuple[str, ...]
    summary: str
    options: tuple[Option, ...] = ()
    takes: tuple[str, ...] = ()
    more: str = ""


COMMON = (Option("--help", "", "show this"), Option("--debug", "", "show where an error happened"))
OWN = Option("--config-dir", "DIR", "your own configurations, in folders method/, model/, ...")
JSON = Option("--json", "", "as JSON")
RUNS = Option("--runs", "DIR", "where the runs are (default: outputs)")
TRUST = Option("--trust", "", "run the code of a model that is not dimred's")
TABLES = (
    Option("--seeds", "N", "how many seeds, or which: 0,1,2"),
    Option("--scale", "FRACTION", "make every recipe shorter"),
    Option("--only", "REGEX", "only the rows and columns that match"),
    OWN,
)

COMMANDS: Mapping[str, Command] = {
    "train": Command(
        "dimred.cli.train:train",
        ("[KEY=VALUE ...]", "-m KEY=V1,V2 ...", "--from RUN [KEY=VALUE ...]"),
        "Train one network, or with -m one for every combination of the values. What is finished "
        "is skipped, what was interrupted is resumed.",
        (
            Option("--from", "RUN", "start from the configuration of a run"),
            Option("--multirun", "", "a sweep, as -m"),
            Option("--cfg", "job", "print the configuration, train nothing"),
            OWN,
        ),
        ("override",),
    ),
    "methods": Command(
        "dimred.cli.methods:methods",
        ("[METHOD ...]",),
        "List all methods, or describe some: equation, fields with defaults and ranges, source.",
        (JSON, OWN),
        ("method",),
    ),
    "check": Command(
        "dimred.cli.check:check",
        ("METHOD [FIELD=VALUE ...] [basis=NAME]",),
        "Check that a method keeps the promises of all methods: exact counts, untouched frozen "
        "weights, resuming to the same bits. METHOD is a name, or your package.Class.",
        (OWN,),
        ("method", "field"),
    ),
    "runs": Command(
        "dimred.cli.runs:runs",
        ("[DIR ...]",),
        "List all runs: state, numbers and configuration. As csv or json with every number, for "
        "pandas.",
        (RUNS, Option("--format", "table|csv|json", "default: table")),
        ("folder",),
    ),
    "show": Command(
        "dimred.cli.show:show",
        ("RUN",),
        "Show a run's layers, numbers and configuration.",
        (JSON,),
        ("run",),
    ),
    "export": Command(
        "dimred.cli.export:export",
        ("RUN FILE",),
        "Write a trained network for other programs.",
        (
            Option(
                "--format", "dense|compact|onnx|torch-export|compacted-channels", "default: dense"
            ),
            Option("--half", "", "in half precision (of --format compact)"),
            TRUST,
        ),
        ("run", "file"),
        "dense is the plain model's state dict, as safetensors, loadable without dimred. compact "
        "is what cannot be made again from the seed, for dimred import. compacted-channels leaves "
        "out removed channels.",
    ),
    "import": Command(
        "dimred.cli.importing:import_compact",
        ("FILE OUT",),
        "Write the plain model's state dict from a compact file.",
        (TRUST,),
        ("file",),
    ),
    "mask": Command(
        "dimred.cli.mask:mask",
        ("show RUN", "diff RUN RUN"),
        "Show which weights a run has trained, layer by layer, or what the masks of two runs have "
        "in common.",
        (JSON,),
        ("show|diff", "run"),
    ),
    "table": Command(
        "dimred.cli.table:table",
        ("[NAME] [KEY=VALUE ...]",),
        "Fill a published table from run folders; without a name, list the tables.",
        (RUNS, Option("--format", "md|latex|csv|json", "default: md"), *TABLES),
        ("table", "override"),
    ),
    "reproduce": Command(
        "dimred.cli.reproduce:reproduce",
        ("NAME [KEY=VALUE ...]",),
        "Run what a table is missing, and print it.",
        (Option("--dry-run", "", "print the commands, run nothing"), *TABLES),
        ("table", "override"),
    ),
    "plot": Command(
        "dimred.cli.plot:plot",
        ("[WHAT ...]",),
        "Draw pictures of runs: sparsity, storage, flops, layers, support, curves, and overview, "
        "a page of all runs; without a name, everything.",
        (
            Option("--runs", "DIR", "where the runs are, or some runs (default: outputs/runs)"),
            Option("--out", "DIR", "where the pictures go (default: outputs/pictures)"),
            Option("--format", "svg|dark.svg|png|pdf", "default: svg"),
        ),
        ("sparsity|storage|flops|layers|support|curves|overview",),
    ),
    "completion": Command(
        "dimred.cli.completion:completion",
        ("SHELL",),
        "Print what makes a shell complete dimred's arguments.",
        (),
        ("bash|zsh|fish",),
        'bash: eval "$(dimred completion bash)" in ~/.bashrc. zsh: eval "$(dimred completion zsh)" '
        "in ~/.zshrc. "
        "fish: dimred completion fish | source in ~/.config/fish/config.fish.",
    ),
}


def find(name: str) -> Command:
    """UserError with the nearest names if there is none."""
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}. {nearest(name, COMMANDS)} See dimred --help")
    return COMMANDS[name]
