"""Data sets: purity of the batches, splits, readers, damage, downloads and the YAMLs."""

from __future__ import annotations

import gzip
import importlib
import inspect
import io
import os
import struct
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision import datasets as published
from torchvision.datasets import utils

from dimred.data import (
    CIFAR10,
    CIFAR100,
    MNIST,
    SVHN,
    Caltech101,
    Data,
    Digits,
    FashionMNIST,
    TinyImageNet,
    files,
    imagefolder,
)
from dimred.data.base import held_out
from dimred.data.memory import crop, mirror
from dimred.data.sets import idx
from dimred.errors import UserError

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("DIMRED_DATA") or ROOT / "../shared/data")
YAMLS = sorted((ROOT / "conf/dataset").glob("*.yaml"))
COLOURS = {"mean": [0.5] * 3, "std": [0.25] * 3}
PLAIN: dict[str, Any] = {
    **COLOURS,
    "val_fraction": 0.0,
    "resize": None,
    "crop_padding": 0,
    "flip": False,
}
FOLDER: dict[str, Any] = {
    **PLAIN,
    "name": "folder",
    "channels": None,
    "in_memory": True,
    "workers": 2,
}
STREAM: dict[str, Any] = {
    **FOLDER,
    "in_memory": False,
    "resize": 16,
    "flip": True,
    "val_fraction": 0.2,
}
forking = pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # what DataLoader does by default on Linux


def config_of(path: Path) -> dict[str, Any]:
    """The data set's own values, without the recipe that goes with it."""
    return {
        key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "defaults"
    }


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMRED_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download is sent to a port of this machine where nobody answers."""
    real = utils.download_url
    monkeypatch.setattr(
        utils, "download_url", lambda url, *rest: real("http://127.0.0.1:9/", *rest)
    )


def real(name: str) -> Path:
    if not (REAL / name).exists():
        pytest.skip(f"no {name} in {REAL}; set DIMRED_DATA to the folder that has it")
    return REAL


def digits(**changes: Any) -> Digits:
    usual = {
        "val_fraction": 0.1,
        "resize": None,
        "mean": [0.3],
        "std": [0.4],
        "crop_padding": 2,
        "flip": True,
    }
    return Digits(**{**usual, **changes})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noise, 6 train and 2 test images each, 20x20 pixels; and a file that is no
    image."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, n in (("train", 6), ("test", 2)):
        for name in "abc":
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(noise.integers(0, 256, (20, 20, 3), np.uint8)).save(
                    folder / split / name / f"{i}.png"
                )
    (folder / "train/a/notes.txt").write_text("not an image")
    return folder


def same(left: Iterator[tuple[Tensor, Tensor]], right: Iterator[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(left, right, strict=True))
    return bool(pairs) and all(
        torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True)
    )


def everything(data: Data) -> Iterator[tuple[Tensor, Tensor]]:
    return chain.from_iterable(map(data.eval_batches, ("train", "val", "test")))


@pytest.fixture(params=["memory", "stream"])
def data(request: pytest.FixtureRequest, pictures: Path) -> Data:
    return (
        digits()
        if request.param == "memory"
        else imagefolder(path=str(pictures), **{**STREAM, "workers": 0})
    )


# Batches


def test_batches_are_a_function_of_seed_and_epoch(data: Data) -> None:
    assert same(data.train_batches(4, seed=1, epoch=2), data.train_batches(4, seed=1, epoch=2))
    first, other_seed, other_epoch = (
        next(data.train_batches(4, *key))[0] for key in ((1, 2), (3, 2), (1, 3))
    )
    assert not torch.equal(first, other_seed)
    assert not torch.equal(first, other_epoch)


def test_starting_late_gives_the_batches_of_starting_early(data: Data) -> None:
    batches = list(data.train_batches(4, seed=0, epoch=0))
    assert len(batches) == data.steps_per_epoch(4) == data.sizes["train"] // 4
    assert same(iter(batches[2:]), data.train_batches(4, seed=0, epoch=0, start=2))


def test_the_global_random_state_is_neither_read_nor_changed(data: Data) -> None:
    def all_draws() -> list[Tensor]:
        return [
            next(data.train_batches(4, 0, 0))[0],
            next(data.eval_batches("test"))[0],
            data.sample(4, seed=0)[0],
        ]

    torch.manual_seed(0)
    state, first = torch.get_rng_state(), all_draws()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, all_draws(), strict=True))


def test_batches_are_float_images_and_long_labels(data: Data) -> None:
    for images, labels in (
        next(data.train_batches(4, 0, 0)),
        next(data.eval_batches("val", 2)),
        data.sample(4, 0),
    ):
        assert (
            images.dtype == torch.float32
            and images.shape[1:] == data.shape
            and images.is_contiguous()
        )
        assert labels.dtype == torch.int64 and labels.shape == images.shape[:1]


def test_evaluation_sees_every_example_once_and_in_order(data: Data) -> None:
    for split, size in data.sizes.items():
        whole, parts = next(data.eval_batches(split, 10_000)), list(data.eval_batches(split, 4))
        assert len(whole[1]) == size and torch.equal(
            torch.cat([images for images, _ in parts]), whole[0]
        )


def test_an_epoch_sees_every_training_example_once() -> None:
    data = digits(crop_padding=0, flip=False)
    seen = torch.cat([images for images, _ in data.train_batches(1, seed=0, epoch=0)])
    expected = torch.cat([images for images, _ in data.eval_batches("train")])
    assert sorted(seen.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())


def test_a_sample_is_of_different_plain_training_examples(data: Data) -> None:
    assert same(iter([data.sample(4, seed=1)]), iter([data.sample(4, seed=1)]))
    assert not torch.equal(data.sample(4, seed=1)[0], data.sample(4, seed=2)[0])
    everyone = torch.cat([images for images, _ in data.eval_batches("train")])
    sample = data.sample(data.sizes["train"], seed=0)[0]
    assert sorted(sample.flatten(1).tolist()) == sorted(everyone.flatten(1).tolist())


@pytest.mark.parametrize("size", [0, 10_000])
def test_impossible_sizes_are_user_errors(data: Data, size: int) -> None:
    with pytest.raises(UserError, match=f"batch size of {size}"):
        next(data.train_batches(size, 0, 0))
    with pytest.raises(UserError, match=f"sample of {size}"):
        data.sample(size, 0)


def test_the_validation_split_is_disjoint_balanced_and_the_same_for_everyone() -> None:
    labels = np.repeat([3, 1, 2], [100, 7, 50])
    keep, held = held_out(labels, 0.1)
    assert sorted([*keep, *held]) == list(range(157)) and len(held) == 16
    assert np.abs(np.bincount(labels[held]) - [0, 0.7, 5, 10]).max() <= 1
    assert np.array_equal(held_out(labels, 0.1)[1], held)


def test_without_a_validation_fraction_there_is_no_validation_split() -> None:
    data = digits(val_fraction=0.0)
    assert data.sizes == {"train": 1438, "val": 0, "test": 359} and not list(
        data.eval_batches("val")
    )


def test_options_out_of_range_are_user_errors() -> None:
    wrong = {"val_fraction": 1.0, "resize": 0, "crop_padding": -1, "mean": [0.1, 0.2], "std": [0.0]}
    for option, value in wrong.items():
        with pytest.raises(UserError, match=f"dataset.{option}="):
            digits(**{option: value})


# Augmentation


def test_crop_and_mirror_of_a_known_image() -> None:
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    padded = torch.nn.functional.pad(image, [1] * 4).expand(2, 2, 5, 5).contiguous()
    corners = torch.tensor(
        [[0, 2], [0, 1]]
    )  # the upper left corner; and two rows down, one column right
    left, right = crop(padded, torch.tensor([0, 1]), corners, (3, 3))[:, 1].tolist()
    assert left == [[0, 0, 0], [0, 1, 2], [0, 4, 5]]
    assert right == [[4, 5, 6], [7, 8, 9], [0, 0, 0]]
    kept, mirrored = mirror(image.expand(2, 1, 3, 3), torch.tensor([False, True]))[:, 0].tolist()
    assert kept == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert mirrored == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]


def test_normalisation_is_of_pixels_between_zero_and_one() -> None:
    whole = torch.cat([images for images, _ in digits(mean=None, std=None).eval_batches("train")])
    assert whole.mean().abs() < 1e-5 and (whole.std(correction=0) - 1).abs() < 1e-5
    assert (
        digits(mean=[0.25], std=[0.5])
        .normalise(torch.tensor([[[[255]]]], dtype=torch.uint8))
        .item()
        == 1.5
    )


def test_resizing_makes_squares() -> None:
    data = digits(resize=12)
    assert data.shape == (1, 12, 12) and next(data.train_batches(4, 0, 0))[0].shape == (
        4,
        1,
        12,
        12,
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_all_devices_see_the_same_batches(data: Data) -> None:
    batches = list(data.to(torch.device("cuda")).train_batches(4, seed=0, epoch=0))
    assert all(t.is_cuda for batch in batches for t in batch)
    assert same(
        data.train_batches(4, seed=0, epoch=0),
        ((images.cpu(), labels.cpu()) for images, labels in batches),
    )


# Published sets


def test_digits_are_those_that_scikit_learn_loads() -> None:
    images, labels = load_digits(return_X_y=True)
    for part, chosen in zip(digits().read(), held_out(labels, 1 / 5), strict=True):
        pixels = (images[chosen] * 255 / 16).round()
        assert np.array_equal(part.images.flatten(1), pixels)
        assert np.array_equal(part.labels, labels[chosen])


def test_files_and_checksums_are_those_of_torchvision() -> None:
    assert MNIST.files == dict(published.MNIST.resources)
    assert FashionMNIST.files == dict(published.FashionMNIST.resources)
    known = published.SVHN.split_list
    assert SVHN.files == {known[split][1]: known[split][2] for split in ("train", "test")}


def test_mnist_is_the_published_one() -> None:
    data = instantiate(config_of(ROOT / "conf/dataset/mnist.yaml"), data_dir=str(real("MNIST/raw")))
    assert (data.name, data.classes, data.shape) == ("MNIST", 10, (1, 28, 28))
    assert data.sizes == {"train": 54_000, "val": 6_000, "test": 10_000}
    assert next(data.eval_batches("test", 5))[1].tolist() == [7, 2, 1, 0, 4]


def test_damaged_mnist_files_are_named(tmp_path: Path) -> None:
    raw, name = real("MNIST/raw") / "MNIST/raw", "train-labels-idx1-ubyte.gz"
    own = tmp_path / "MNIST/raw"
    own.mkdir(parents=True)
    for file in raw.iterdir():
        (own / file.name).symlink_to(file.absolute())
    other = bytearray(gzip.decompress((raw / name).read_bytes()))
    other[100] ^= 1
    for damage in (gzip.compress(other), (raw / name).read_bytes()[:1000], b"", b"not gzip"):
        (own / name).unlink()
        (own / name).write_bytes(damage)
        with pytest.raises(UserError, match=f"{name} is damaged"):
            MNIST(data_dir=str(tmp_path), **{**PLAIN, "mean": [0.1], "std": [0.3]})


def test_idx_files_are_parsed_and_checked() -> None:
    content = struct.pack(">HBBii", 0, 8, 2, 2, 3) + bytes(range(6))
    assert idx(Path("x"), content).tolist() == [[0, 1, 2], [3, 4, 5]]
    for wrong in (content[:-1], content[:5], b"", b"\0\0\x09" + content[3:]):
        with pytest.raises(UserError, match="x is damaged"):
            idx(Path("x"), wrong)


def tar_of(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_cifar_records_are_parsed(
    kind: type[CIFAR10], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (5, kind.label_bytes + 3072), np.uint8)
    rows[:, : kind.label_bytes] = np.arange(5 * kind.label_bytes).reshape(5, -1)
    names = ("data_batch_2", "data_batch_1", "test_batch") if kind is CIFAR10 else ("train", "test")
    parts = {f"cifar/{name}.bin": rows[i : i + 2].tobytes() for i, name in enumerate(names)}
    archive = tar_of({**parts, "cifar/readme.html": b"x"})
    (tmp_path / kind.archive).write_bytes(archive)
    with pytest.raises(UserError, match="md5"):
        kind(data_dir=str(tmp_path), **PLAIN)
    monkeypatch.setattr(kind, "md5", files.md5_of(archive))
    train, test = kind.read(kind(data_dir=str(tmp_path), **PLAIN))
    order = [1, 2, 0, 1] if kind is CIFAR10 else [0, 1]
    pixels = torch.from_numpy(rows[:, kind.label_bytes :].reshape(-1, 3, 32, 32))
    assert torch.equal(train.images, pixels[order])
    assert train.labels.tolist() == rows[order, kind.label_bytes - 1].tolist()
    assert torch.equal(test.images, pixels[len(names) - 1 :][:2])


def test_svhn_calls_the_digit_zero_class_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), np.uint8)
    (tmp_path / "SVHN").mkdir()
    md5s = {}
    for split in ("train", "test"):
        file = tmp_path / "SVHN" / f"{split}_32x32.mat"
        savemat(file, {"X": pixels, "y": np.array([[10], [1], [9], [10]], np.uint8)})
        md5s[file.name] = files.md5_of(file.read_bytes())
    monkeypatch.setattr(SVHN, "files", md5s)
    data = SVHN(data_dir=str(tmp_path), **PLAIN)
    assert data.splits["train"].labels.tolist() == [0, 1, 9, 0]
    assert torch.equal(data.splits["test"].images[2, 1], torch.from_numpy(pixels[:, :, 1, 2]))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"test_32x32.mat is damaged"):
        SVHN(data_dir=str(tmp_path), **PLAIN)


def test_tiny_imagenet_takes_its_test_labels_from_the_annotations(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "tiny-imagenet-200"
    image = (pictures / "test/a/0.png").read_bytes()
    names = [
        "train/n1/images/n1_0.png",
        "train/n2/images/n2_0.png",
        "val/images/val_0.png",
        "val/images/val_1.png",
    ]
    for name in [*names, "test/images/test_0.png"]:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(image)
    (home / "val/val_annotations.txt").write_text(
        "val_0.png\tn2\t0\t0\t9\t9\nval_1.png\tn1\t0\t0\t9\t9\n"
    )
    data = TinyImageNet(data_dir=str(tmp_path), workers=0, **PLAIN)
    assert data.sizes == {"train": 2, "val": 0, "test": 2}
    assert sorted(data.splits["test"].labels.tolist()) == [0, 1]
    with zipfile.ZipFile(tmp_path / "tiny-imagenet-200.zip", "w") as archive:
        for file in home.rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path))
    home.rename(tmp_path / "aside")
    monkeypatch.setattr(
        TinyImageNet, "md5", files.md5_of((tmp_path / "tiny-imagenet-200.zip").read_bytes())
    )
    assert same(
        everything(data), everything(TinyImageNet(data_dir=str(tmp_path), workers=0, **PLAIN))
    )
    (tmp_path / "aside").rename(home)
    (home / "val/val_annotations.txt").unlink()
    with pytest.raises(UserError, match=r"val_annotations\.txt"):
        TinyImageNet(data_dir=str(tmp_path), workers=0, **PLAIN)


def test_caltech_reads_the_archive_in_its_zip_and_drops_the_background(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = "101_ObjectCategories"
    images = {
        f"{top}/{file.parent.name}/{file.name}": file.read_bytes()
        for file in pictures.glob("train/*/*.png")
    }
    images[f"{top}/BACKGROUND_Google/0.png"] = images[f"{top}/a/0.png"]
    (tmp_path / "caltech101").mkdir()
    with zipfile.ZipFile(tmp_path / "caltech101/caltech-101.zip", "w") as archive:
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", tar_of(images))
    monkeypatch.setattr(
        Caltech101, "md5", files.md5_of((tmp_path / "caltech101/caltech-101.zip").read_bytes())
    )
    zipped = Caltech101(data_dir=str(tmp_path), workers=0, **PLAIN)
    assert (zipped.classes, zipped.sizes) == (3, {"train": 14, "val": 0, "test": 4})
    for name, content in images.items():
        (tmp_path / "caltech101" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "caltech101" / name).write_bytes(content)
    unpacked = Caltech101(data_dir=str(tmp_path), workers=0, **PLAIN)
    assert same(everything(zipped), everything(unpacked))


# Image folders


def archived(folder: Path, target: Path) -> Path:
    """The files of a folder, in one more folder, in an archive that also has what nobody should
    trust."""
    content = {
        f"set/{file.relative_to(folder)}": file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }
    content["set/train/a/../../escape.png"] = content["set/__MACOSX/train/a/._0.png"] = (
        b"never looked at"
    )
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
    else:
        target.write_bytes(
            tar_of(content, "w:" + target.suffix[1:] if target.suffix != ".tar" else "w")
        )
    return target


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.tar.bz2", "x.zip"])
def test_a_folder_and_its_archive_are_the_same_data(
    pictures: Path, tmp_path: Path, name: str
) -> None:
    plain = imagefolder(path=str(pictures), **FOLDER)
    packed = imagefolder(path=str(archived(pictures, tmp_path / name)), **FOLDER)
    assert (plain.classes, plain.shape, plain.sizes) == (
        3,
        (3, 20, 20),
        {"train": 18, "val": 0, "test": 6},
    )
    assert same(everything(plain), everything(packed))


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tar.xz", "x.zip"])
def test_cut_archives_are_named(pictures: Path, tmp_path: Path, name: str) -> None:
    whole = archived(pictures, tmp_path / name).read_bytes()
    needed = len(whole.rstrip(b"\0"))  # behind that a tar is padded
    for size in (0, 100, 512, needed // 1024 * 512, needed // 2, needed - 20):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"{name} is damaged"):
            imagefolder(path=str(tmp_path / name), **FOLDER)


def test_links_in_archives_are_passed_over(pictures: Path, tmp_path: Path) -> None:
    with tarfile.open(archived(pictures, tmp_path / "x.tar"), "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("set/train/a/link.png")
            link.type, link.linkname = kind, "/etc/hostname"
            tar.addfile(link)
    assert imagefolder(path=str(tmp_path / "x.tar"), **FOLDER).sizes["train"] == 18


def test_without_a_test_folder_a_fixed_fifth_of_every_class_is_held_out(pictures: Path) -> None:
    data = imagefolder(path=str(pictures / "train"), **FOLDER)
    assert (data.classes, data.sizes) == (3, {"train": 14, "val": 0, "test": 4})


def test_unequal_sizes_ask_for_resize(pictures: Path, tmp_path: Path) -> None:
    for name, side in (("a/0.png", 20), ("b/0.png", 30), ("b/1.png", 20)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (side, side)).save(tmp_path / name)
    with pytest.raises(UserError, match=r"unequal sizes .*dataset.resize=64"):
        imagefolder(path=str(tmp_path), **FOLDER)
    assert imagefolder(path=str(tmp_path), **{**FOLDER, "channels": 3, "resize": 8}).shape == (
        3,
        8,
        8,
    )


def test_unsuitable_folders_are_user_errors(pictures: Path, tmp_path: Path) -> None:
    problems = {
        tmp_path / "none": "does not exist",
        tmp_path: "0 class folders",
        Path(__file__): "has another type",
    }
    for path, problem in problems.items():
        for kind in (FOLDER, STREAM):
            with pytest.raises(UserError, match=problem):
                imagefolder(path=str(path), **kind)
    archive = archived(pictures, tmp_path / "x.tar")
    for option, value in {"resize": None, "crop_padding": 4, "path": str(archive)}.items():
        with pytest.raises(UserError, match="in_memory=false"):
            imagefolder(**{**STREAM, "path": str(pictures), option: value})


def test_decoded_images_are_remembered_until_the_files_change(
    pictures: Path, tmp_path: Path
) -> None:
    archive = archived(pictures, tmp_path / "x.zip")
    first = imagefolder(path=str(archive), **FOLDER)
    (cached,) = (tmp_path / "cache").iterdir()
    before = cached.stat().st_mtime_ns
    assert same(everything(first), everything(imagefolder(path=str(archive), **FOLDER)))
    assert cached.stat().st_mtime_ns == before
    cached.write_bytes(b"spoilt")  # is made again
    assert same(everything(first), everything(imagefolder(path=str(archive), **FOLDER)))
    os.utime(archive, (0, 0))
    imagefolder(path=str(archive), **FOLDER)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_cache(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIMRED_CACHE", str(tmp_path / "file/cache"))
    assert imagefolder(path=str(pictures), **FOLDER).sizes["train"] == 18


def test_cifar10_jpeg_reads_its_archive() -> None:
    config = config_of(ROOT / "conf/dataset/cifar10_jpeg.yaml")
    data = instantiate(config, path=str(real("cifar10-jpeg.tar.xz") / "cifar10-jpeg.tar.xz"))
    assert (data.name, data.classes, data.shape) == ("CIFAR-10-JPEG", 10, (3, 32, 32))
    assert data.sizes == {"train": 45_000, "val": 5_000, "test": 10_000}
    assert torch.bincount(data.splits["val"].labels).tolist() == [500] * 10


# Streaming


@forking
def test_streams_do_not_depend_on_the_number_of_workers(pictures: Path) -> None:
    alone, helped = (imagefolder(path=str(pictures), **{**STREAM, "workers": n}) for n in (0, 2))
    assert alone.sizes == {"train": 14, "val": 4, "test": 6} and alone.shape == (3, 16, 16)
    assert same(alone.train_batches(4, seed=0, epoch=1), helped.train_batches(4, seed=0, epoch=1))
    assert same(alone.eval_batches("test", 4), helped.eval_batches("test", 4))


@forking
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cut_image_is_named_in_memory_and_in_streams(
    pictures: Path, tmp_path: Path, workers: int
) -> None:
    for name in ("a/0.png", "b/0.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((pictures / "train" / name).read_bytes())
    (tmp_path / "b/1.png").write_bytes((pictures / "train/b/1.png").read_bytes()[:600])
    with pytest.raises(UserError, match=r"b/1.png is damaged"):
        imagefolder(path=str(tmp_path), **FOLDER)
    data = imagefolder(path=str(tmp_path), **{**STREAM, "val_fraction": 0.0, "workers": workers})
    with pytest.raises(UserError, match=r"^[^\n]*b/1.png is damaged[^\n]*$"):
        list(everything(data))


# Downloads


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", [path.stem for path in YAMLS if "data_dir:" in path.read_text()])
def test_failed_downloads_say_what_belongs_where(name: str, tmp_path: Path) -> None:
    config = config_of(ROOT / f"conf/dataset/{name}.yaml")
    target = getattr(importlib.import_module("dimred.data"), config.pop("_target_").split(".")[-1])
    (tmp_path / "file").touch()
    for data_dir, why in ((tmp_path, "refused"), (tmp_path / "file/below", "Not a directory")):
        with pytest.raises(
            UserError,
            match=f"is missing and its download failed.*{why}.* is read from .*set data_dir",
        ):
            target(**{**config, "data_dir": str(data_dir)})
    assert not list(tmp_path.rglob(".download-*"))


@pytest.mark.usefixtures("offline")
def test_missing_cifar10_suggests_the_jpegs_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "cifar10-jpeg.tar.xz").touch()
    with pytest.raises(UserError, match="dataset=cifar10_jpeg"):
        CIFAR10(data_dir=str(tmp_path), **PLAIN)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))
    ) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_downloads_are_whole_and_checked(server: str, tmp_path: Path) -> None:
    (tmp_path / "served/file").write_bytes(b"content")
    target, urls = tmp_path / "data/file", [f"{server}/none", f"{server}/file"]
    with pytest.raises(UserError, match=r"404.*corrupted"):
        files.fetch(target, urls, files.md5_of(b"other"), "")
    assert not list((tmp_path / "data").iterdir())
    assert files.fetch(target, urls, files.md5_of(b"content"), "").read_bytes() == b"content"
    assert list((tmp_path / "data").iterdir()) == [target]


# YAMLs


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_a_yaml_lists_every_parameter_of_its_target_which_has_no_default(path: Path) -> None:
    config = config_of(path)
    module, name = config.pop("_target_").rsplit(".", 1)
    target: Callable[..., Data] = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(target).parameters
    assert list(config) and set(config) == set(parameters)
    assert all(parameter.default is parameter.empty for parameter in parameters.values())
