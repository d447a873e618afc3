"""Tests sweeps and tables on clusters: see scripts/clusters."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import with_ray
import with_slurm
import with_tables

PARTS = {"slurm": with_slurm, "ray": with_ray, "tables": with_tables}


def main(names: list[str]) -> int:
    """Exit status 1 if a part could not run or went wrong."""
    chosen = names or list(PARTS)
    missing = {name: PARTS[name].needs() for name in chosen}
    for name, needed in missing.items():
        if needed:
            print(f"{name}: not run, it needs {needed}")
    able = [name for name in chosen if not missing[name]]
    with tempfile.TemporaryDirectory() as place:
        for name in able:
            PARTS[name].run(Path(place) / name)
    return int(len(able) < len(chosen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
