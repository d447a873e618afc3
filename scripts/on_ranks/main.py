"""What a run on several processes promises, method by method: prints a table at the end."""

from __future__ import annotations

import argparse
import logging
import sys

import torch.distributed as dist

from dimred.conformance import NOT_EXAMINED, Make
from dimred.conformance.checks import captured_warnings
from dimred.conformance.on_ranks import Comparison, compare
from dimred.errors import UserError
from dimred.runs.config.composition import composed
from dimred.runs.config.files import names
from dimred.runs.printing import table

HEADER = ("method", "net", "same weights", "loss", "weight", "bytes a step", "of all parameters")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="by default all")
    parser.add_argument("--basis", default="none")
    asked = parser.parse_args()
    logging.getLogger("dimred").setLevel(logging.ERROR)
    dist.init_process_group("gloo")
    rows, failed = [], 0
    for method in asked.methods or sorted({*names("method")} - NOT_EXAMINED.keys()):
        make = Make(method, composed([f"method={method}", f"basis={asked.basis}"]))
        try:
            with captured_warnings():
                found = compare(make)
        except UserError as error:
            rows.append((method, "", "", "", "", "", f"failed: {error}"))
            failed += 1
            continue
        if found:
            rows.append(row(method, found))
            failed += not found.agrees
            print(*rows[-1], file=sys.stderr, flush=True)
    if dist.get_rank() == 0:
        print(table(HEADER, rows))
        print(f"\n{len(rows) - failed} of {len(rows)} methods agree with one process")
    dist.barrier()
    dist.destroy_process_group()
    return int(failed > 0)


def row(method: str, found: Comparison) -> tuple[str, ...]:
    return (
        method,
        found.kind,
        f"{100 * found.common:.2f} %",
        f"{found.loss:.1e}",
        f"{found.weight:.1e}",
        f"{found.sent:.0f}",
        str(found.dense),
    )


if __name__ == "__main__":
    sys.exit(main())
