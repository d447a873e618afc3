"""Images per second of streamed JPEGs: dimred against torchvision's ImageFolder with a DataLoader,
and against timm's loader where that is installed.

All give shuffled, normalised float32 batches of 128 random parts (RandomResizedCrop, scaled to 224
pixels, mirrored at random) of the same files on the CPU: 500 x 375 pixels of noise whose spectrum
falls with the frequency, as that of photographs does, so that they compress like them (about 100 kB
at quality 90). There are 250 different pictures among the files.

A core: images per second of processor time, without worker processes and with one thread. In all:
images per second with a worker process for each core. The implementations take turns, so that other
load on the machine affects all of them; figures are medians over the rounds, ratios medians of the
ratios within a round. Memory is kept for the next batch, as dimred does, for all of them.

    ./scripts/bench data [--images 20000] [--rounds 5] [--folder DIR]"""

from __future__ import annotations

from dimred.runs.environment import prepare_process

prepare_process()  # as the command line does, before torch is imported

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from dimred.data import imagefolder, webdataset
from dimred.data.prepare import Preparation
from dimred.data.sources import collection_at

BATCH, SIZE = 128, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DIFFERENT = 250
WARM, TIMED = 2, 4  # batches for each process
Batches = Callable[[int], Iterator[Any]]  # of a number of worker processes


def picture(seed: int) -> bytes:
    """A JPEG of noise with the spectrum 1 / f^1.15 in each colour."""
    noise = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None]
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1
    shape = (3, *frequency.shape)
    spectrum = (noise.normal(size=shape) + 1j * noise.normal(size=shape)) / frequency**1.15
    grey, *tints = np.fft.irfft2(spectrum, s=(375, 500))
    colours = np.stack([grey + 0.3 * tints[0], grey, grey + 0.3 * tints[1]], -1)
    pixels = (120 + 50 * colours / colours.std()).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def make(folder: Path, images: int) -> None:
    """Class folders with `images` train images in ten classes, and a test image in each."""
    pictures = [picture(seed) for seed in range(min(DIFFERENT, images))]
    for label in range(10):
        for split in ("train", "test"):
            (folder / split / f"{label}").mkdir(parents=True)
        (folder / f"test/{label}/0.jpg").write_bytes(pictures[label])
    for i in range(images):
        (folder / f"train/{i % 10}/{i:06}.jpg").write_bytes(pictures[i % len(pictures)])
    print(
        f"{images} JPEGs of 500 x 375, {sum(map(len, pictures)) / len(pictures) / 1e3:.0f} kB each"
    )


def of_torchvision(folder: Path) -> Batches:
    steps = [
        transforms.RandomResizedCrop(SIZE),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    data = ImageFolder(str(folder / "train"), transforms.Compose(steps))
    return lambda workers: iter(
        DataLoader(data, BATCH, shuffle=True, drop_last=True, num_workers=workers)
    )


def of_timm(folder: Path) -> Batches | None:
    try:
        from timm.data import create_dataset, create_loader
    except ImportError:
        return None
    data = create_dataset("folder", str(folder / "train"))
    return lambda workers: iter(
        create_loader(
            data, input_size=(3, SIZE, SIZE), batch_size=BATCH, is_training=True,
            num_workers=workers, use_prefetcher=False, interpolation="bilinear", hflip=0.5,
            color_jitter=None, mean=MEAN, std=STD, persistent_workers=False,
            device=torch.device("cpu"),
        )
    )  # fmt: skip


def of_dimred(path: Path, make: Callable[..., Any] = imagefolder) -> Batches:
    def batches(workers: int) -> Iterator[Any]:
        data = make(
            name="noise", path=str(path), in_memory=False, workers=workers, val_fraction=0.0,
            resize=SIZE, channels=3, mean=MEAN, std=STD, crop_padding=0, flip=True,
            skip_corrupted=False,
        )  # fmt: skip
        return iter(data.train_batches(BATCH, seed=0, epoch=0))

    return batches


def rates(batches: Batches, cores: int) -> tuple[float, float]:
    """Images per second of one core's time, and of time with a worker on each core."""
    return rate(batches(0), 1, time.process_time), rate(batches(cores), cores, time.perf_counter)


def rate(batches: Iterator[Any], workers: int, clock: Callable[[], float]) -> float:
    # each worker begins with two batches, so the first of each may be ready before they are due
    for _ in islice(batches, WARM * workers):
        pass
    start = clock()
    for _ in islice(batches, TIMED * workers):
        pass
    return TIMED * workers * BATCH / (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to write the images (default: a temporary folder)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    if given.images < (WARM + TIMED) * cores * BATCH:
        parser.error(f"--images: at least {(WARM + TIMED) * cores * BATCH} are needed")
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder, shards = Path(name, "images"), Path(name, "shards")
        make(folder, given.images)
        contest(folder, shards, given.rounds, cores)


def contest(folder: Path, shards: Path, rounds: int, cores: int) -> None:
    start = time.perf_counter()
    for _ in Preparation(collection_at(str(folder)), shards, 256, 90, False).write(cores):
        pass
    print(f"dimred data prepare --size 256: {time.perf_counter() - start:.0f} s")
    contenders = {
        "torchvision": of_torchvision(folder),
        "timm": of_timm(folder),
        "dimred": of_dimred(folder),
        "dimred, prepared shards": of_dimred(shards, webdataset),
    }
    present = {name: batches for name, batches in contenders.items() if batches}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in present}
    for _ in range(rounds):
        for name, batches in present.items():
            measured[name].append(rates(batches, cores))
    print(f"{'images/s':>24}{'a core':>10}{'ratio':>8}{f'{cores} cores':>10}{'ratio':>8}")
    for name, found in measured.items():
        row = f"{name:>24}"
        for kind in (0, 1):
            ratio = median(
                ours[kind] / theirs[kind]
                for ours, theirs in zip(found, measured["torchvision"], strict=True)
            )
            row += f"{median(each[kind] for each in found):>10,.0f}{ratio:>8.2f}"
        print(row)


if __name__ == "__main__":
    main()
