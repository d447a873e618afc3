"""What only a GPU can show, in parts: prints a table at the end and writes it as JSON."""

from __future__ import annotations

from dimred.runs.environment import prepare_process

prepare_process()  # as the command line does, before torch is imported

import argparse
import json
import logging
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bits
import networks
import packing
import steps
import torch

Part = Callable[[], dict[str, Any]]


def tests() -> dict[str, Any]:
    """The tests that need a GPU."""
    files = [
        str(path) for path in Path("tests").glob("test_*.py") if "mark.gpu" in path.read_text()
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *files]
    code = subprocess.run(command, check=False).returncode
    return {"wrong": [f"pytest ended with exit status {code}"] if code else []}


#: each returns what it has measured and, under `wrong`, what is not as it should be
PARTS: dict[str, Part] = {
    "tests": tests,
    "bits": bits.bits,
    "resume": bits.resume,
    "ranks": bits.ranks,
    "networks": networks.networks,
    "steps": steps.steps,
    "loop": steps.loop,
    "compiled": networks.compiled,
    "packing": packing.packing,
}

BY_DEFAULT = [name for name in PARTS if name != "compiled"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", help=f"of {', '.join(PARTS)}; by default all but compiled"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("gpu.json"), help="where to write, or to add to"
    )
    asked = parser.parse_args()
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is named {unknown[0]!r}; choose of {', '.join(PARTS)}")
    chosen = asked.parts or BY_DEFAULT
    if not torch.cuda.is_available():
        print("No GPU is visible here. On a machine with one this would run:")
        for name in chosen:
            print(f"  {name}: {about(PARTS[name])}")
        return
    logging.getLogger("dimred").setLevel(logging.ERROR)
    found = before(asked.json)
    print(f"{found['device']}, torch {found['torch']}, CUDA {found['cuda']}", flush=True)
    for number, name in enumerate(chosen, 1):
        print(f"\n-- {name}: {about(PARTS[name])}", flush=True)
        began = time.monotonic()
        found[name], usable = outcome(PARTS[name])
        found[name]["seconds"] = round(time.monotonic() - began, 1)
        print(f"({found[name]['seconds']} s)", flush=True)
        asked.json.write_text(json.dumps(found, indent=1))
        if not usable and chosen[number:]:  # not by this process, but by another one
            rest = [sys.argv[0], *chosen[number:], "--json", str(asked.json)]
            os.execv(sys.executable, [sys.executable, *rest])
    sys.exit(summary(found, asked.json))


def about(part: Part) -> str:
    return (part.__doc__ or "").partition("\n")[0]


def before(path: Path) -> dict[str, Any]:
    """What other parts have found on this device, with these versions."""
    here = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found if here.items() <= found.items() else here


def outcome(part: Part) -> tuple[dict[str, Any], bool]:
    """What a part has found, and whether this process can still use the GPU."""
    try:
        return part(), True
    except Exception as error:
        traceback.print_exc()
        return {"wrong": [repr(error)]}, not isinstance(
            error.__cause__ or error, torch.AcceleratorError
        )


def summary(found: dict[str, Any], path: Path) -> int:
    """Print what each part has found; the exit status."""
    print("\npart          seconds  wrong")
    parts = [name for name in PARTS if name in found]
    for name in parts:
        wrong = "; ".join(found[name].get("wrong", [])) or "nothing"
        print(f"{name:12} {found[name]['seconds']:8}  {wrong}")
    print(f"in all {sum(found[name]['seconds'] for name in parts):.0f} s; written to {path}")
    return any(found[name].get("wrong") for name in parts)


if __name__ == "__main__":
    main()
