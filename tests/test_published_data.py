"""Published data sets: their files, checksums and downloads."""

from __future__ import annotations

import gzip
import importlib
import struct
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from scipy.io import savemat
from sklearn.datasets import load_digits
from small_data import (
    PLAIN,
    ROOT,
    YAMLS,
    config_of,
    digits,
    everything,
    real,
    same,
    tar_of,
)
from torchvision import datasets as published

from dimred.data import (
    CIFAR10,
    CIFAR100,
    MNIST,
    SVHN,
    Caltech101,
    FashionMNIST,
    TinyImageNet,
    files,
)
from dimred.data.base import held_out
from dimred.data.sets import idx
from dimred.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request is sent to a port of this machine where nobody answers."""
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    for key in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(key, raising=False)


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
