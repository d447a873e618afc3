"""Time and memory of the start with many image files.

Makes class folders of empty files and measures, in a process of its own each: the first start,
which lists the folders, and a second one, which has the list from the cache; the fingerprint that a
run takes of its inputs; and torchvision's ImageFolder. Memory is the growth of the resident set,
and its peak, over what the imports need.

    ./scripts/bench names [--files 200000] [--folder DIR]"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLASSES = 1000
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from torchvision.datasets import ImageFolder
from dimred.data.encoded import class_folders
from dimred.runs.inputs import fingerprint

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

before, start = resident(), time.perf_counter()
kept = {work}
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([seconds, resident() - before, peak - before]))
"""
WORK = {
    "dimred, first start": "class_folders(Path(sys.argv[1]))",
    "dimred, from the cache": "class_folders(Path(sys.argv[1]))",
    "fingerprint of the run": "fingerprint(Path(sys.argv[1]))",
    "torchvision ImageFolder": "ImageFolder(str(Path(sys.argv[1]) / 'train'))",
}


def make(folder: Path, files: int) -> None:
    """Names as long as those of ImageNet."""
    for label in range(CLASSES):
        for split in ("train", "val"):
            (folder / split / f"n{label:08}").mkdir(parents=True)
        (folder / f"val/n{label:08}/ILSVRC2012_val_{label:08}.JPEG").touch()
    for i in range(files):
        label = i % CLASSES
        (folder / f"train/n{label:08}/n{label:08}_{i}.JPEG").touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folder", help="where to make the files (default: a temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        images, cache = Path(name, "images"), Path(name, "cache")
        make(images, given.files)
        time.sleep(3)  # the list of a folder that has just changed is not cached
        print(f"{given.files} files: {'seconds':>26}{'MB kept':>10}{'MB at peak':>12}")
        for what, work in WORK.items():
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM.replace("{work}", work), str(images)],
                env={**os.environ, "DIMRED_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            seconds, kept, peak = json.loads(done.stdout)
            print(f"{what:>28}{seconds:>12.2f}{kept / 1e6:>10.1f}{peak / 1e6:>12.1f}")


if __name__ == "__main__":
    main()
