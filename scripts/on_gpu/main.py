"""What only a GPU can show, in parts: prints a table at the end and writes it as JSON."""

from __future__ import annotations

from dimred.runs.environment import prepare_process

prepare_process()  # as the command line does, before torch is imported

import argparse
import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bits
import packing
import steps
import torch


def tests() -> dict[str, int]:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"]
    return {"exit_code": subprocess.run(command, check=False).returncode}


PARTS = {
    "tests": tests,
    "bits": bits.bits,
    "resume": bits.resume,
    "steps": steps.steps,
    "loop": steps.loop,
    "compiled": steps.compiled,
    "packing": packing.packing,
}

BY_DEFAULT = [name for name in PARTS if name != "compiled"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", help=f"of {', '.join(PARTS)}; by default all but compiled"
    )
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="where to write")
    asked = parser.parse_args()
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is named {unknown[0]!r}; choose of {', '.join(PARTS)}")
    chosen = {name: PARTS[name] for name in asked.parts or BY_DEFAULT}
    if not torch.cuda.is_available():
        print("No GPU is visible here. On a machine with one this would run:")
        for name, part in chosen.items():
            print(f"  {name}: {(part.__doc__ or '').splitlines()[0]}")
        return
    logging.getLogger("dimred").setLevel(logging.ERROR)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    print(*found.values(), sep=", ", flush=True)
    for name, part in chosen.items():
        print(f"\n-- {name}: {(part.__doc__ or '').splitlines()[0]}", flush=True)
        began = time.monotonic()
        found[name] = part()
        found[f"{name}_seconds"] = round(time.monotonic() - began, 1)
        print(f"({found[f'{name}_seconds']} s)", flush=True)
        asked.json.write_text(json.dumps(found, indent=1))
    print(f"\nwritten to {asked.json}")


main()
