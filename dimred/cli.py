"""The command line. Only commands that compute import torch: everything else answers at once."""
from __future__ import annotations

import logging
import os
import pkgutil
import sys

from dimred.errors import Interrupted, UserError, nearest
from dimred.machine import settle
from dimred.terminal import accept_any_text, listen, printable

#: each command, and the function that it is: what is left of the arguments -> exit status
COMMANDS = {name: f"dimred.commands.{where}" for name, where in {
    "train": "train:train", "methods": "methods:methods", "check": "check:check", "show": "show:show",
    "export": "export:export", "import": "importing:import_compact", "mask": "mask:mask",
    "table": "table:table", "reproduce": "reproduce:reproduce", "plot": "plot:plot"}.items()}

HELP = """\
dimred: dimensionality-reduced training. Train a few coordinates of a network, prune or freeze the rest.

  dimred train [KEY=VALUE ...]      train one network; again: skip what is finished, resume what was interrupted
  dimred train -m KEY=V1,V2 ...     every combination of the values
  dimred train --help               the keys and what they may be
  dimred methods [--json]           every method: name, family, one line, citation
  dimred check METHOD [FIELD=VALUE ...]
                                    does it keep the promises of all methods? METHOD: a name, or your package.Class
  dimred show RUN [--json]          a run's layers, numbers and configuration
  dimred export RUN FILE [--format dense|compact|onnx|torch-export|compacted-channels]
                                    dense: the plain model's state dict, as safetensors, loadable without dimred;
                                    compact: what cannot be made again from the seed, for dimred import
                                    (--half: in half precision)
                                    (--trust: run the code of a model that is not dimred's)
  dimred import FILE OUT            the plain model's state dict, from a compact file
  dimred mask show RUN [--json]     which weights a run has trained, layer by layer
  dimred mask diff RUN RUN [--json] what the masks of two runs have in common
  dimred table [NAME] [--runs DIR] [--format md|latex|csv|json]
                                    a published table filled from run folders; without a name, which ones there are
  dimred reproduce NAME [--dry-run] [--seeds 3] [--scale 0.1] [--only REGEX] [KEY=VALUE ...]
                                    run what a table is missing, and print it
  dimred plot [WHAT ...] [--runs DIR|RUN ...] [--out DIR] [--format svg|png|pdf]
                                    pictures of runs: sparsity, storage, flops, layers, support, curves, and a page of
                                    all runs, overview; without a name, everything

Any command takes --debug, which shows where an error happened. Try:

  dimred train method=rigl sparsity=0.95
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status. Errors are one message, without a traceback unless --debug is given."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:
        arguments.remove("--debug")
    accept_any_text()
    listen(logging.DEBUG if debug else logging.INFO)
    settle()
    try:
        return dispatch(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"dimred: {printable(str(error))}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"dimred: {stop}", file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt:
        print("dimred: stopped; the same command starts again or goes on from its last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:     # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        print(f"dimred: unexpected {type(error).__name__}: {printable(str(error))}. Repeat with --debug to see where",
              file=sys.stderr)
        return 1


def dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help") or (
            arguments[0] != "train" and {"-h", "--help"} & set(arguments)):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version
        print(version("dimred"))
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}. {nearest(name, COMMANDS)} See dimred --help")
    return pkgutil.resolve_name(COMMANDS[name])(rest)
