"""dimred data: write shards of reduced images, and check them."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from dimred.cli.commands import Parser
from dimred.errors import UserError, require

log = logging.getLogger(__name__)


def parser() -> Parser:
    parser = Parser(
        "data",
        "prepare SOURCE TARGET [OPTION ...]",
        "check FOLDER",
        summary="Write the images of a data set, reduced to one size, to tar shards; or compare "
        "such shards with their checksums.",
        more="SOURCE is a folder or archive of class folders, a folder of tar shards, or what "
        "dataset=huggingface reads. Repeat an interrupted command to resume it. Train on the "
        "shards with dataset=webdataset dataset.path=TARGET.",
    )
    parser.add_argument("action", choices=("prepare", "check"), help="what to do")
    parser.add_argument(
        "paths", nargs="*", default=[], metavar="FILE", help="SOURCE and TARGET, or FOLDER"
    )
    parser.add_argument(
        "--size",
        type=int,
        default=256,
        metavar="PIXELS",
        help="reduce images whose shorter side is longer than this (default: 256)",
    )
    parser.add_argument(
        "--quality", type=int, default=90, metavar="N", help="of the JPEGs (default: 90)"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="processes (default: one a core)")
    parser.add_argument(
        "--skip-corrupted",
        action="store_true",
        help="leave out images that cannot be decoded, instead of an error",
    )
    return parser


def run(arguments: list[str]) -> int:
    """Exit status 1 if a shard is missing or damaged."""
    parsed = parser()
    given = parsed.parse(arguments)
    if len(given.paths) != (2 if given.action == "prepare" else 1):
        parsed.error(f"got {' '.join([given.action, *given.paths])}")
    paths = [Path(path).expanduser() for path in given.paths]
    return check(paths[0]) if given.action == "check" else prepare(given, *paths)


def prepare(given: argparse.Namespace, source: Path, target: Path) -> int:
    jobs = (os.cpu_count() or 1) if given.jobs is None else given.jobs
    require(0 <= jobs <= 1024, "--jobs", jobs, "from 0 (this process) to 1024")
    require(8 <= given.size <= 4096, "--size", given.size, "from 8 to 4096 pixels")
    require(1 <= given.quality <= 95, "--quality", given.quality, "from 1 to 95")
    from tqdm import tqdm

    from dimred.data.prepare import Preparation
    from dimred.data.sources import collection_at

    if target.resolve() == source.resolve():
        raise UserError(f"{target} is the source, too. Choose another folder to write to.")
    found = collection_at(str(given.paths[0]))
    for note in found.layout.notes:
        log.warning("%s: %s", source, note)
    made = Preparation(found, target, given.size, given.quality, given.skip_corrupted)
    images = sum(len(shard.labels) for shard in made.shards)
    done = images - sum(len(shard.labels) for shard in made.left())
    with tqdm(total=images, initial=done, unit="image", disable=None, leave=False) as bar:
        for written in made.write(jobs):
            bar.update(written.entry["images"] + len(written.skipped))
            for name in written.skipped:
                log.warning("%s is corrupted and left out", name)
    entries = made.manifest["shards"].values()
    images, skipped, size = (
        sum(entry[key] for entry in entries) for key in ("images", "skipped", "bytes")
    )
    print(
        f"{target}: images: {images}, shards: {len(entries)}, size: {size / 2**20:.4g} MiB, "
        f"corrupted and left out: {skipped}"
    )
    return 0


def check(folder: Path) -> int:
    from dimred.data.manifest import problems

    found = list(problems(folder))
    wrong = [(name, problem) for name, problem in found if problem]
    for name, problem in wrong:
        print(f"{folder / name}: {problem}")
    print(f"{folder}: shards: {len(found)}, missing or damaged: {len(wrong)}")
    return 1 if wrong else 0
