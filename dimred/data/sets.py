"""Data sets published as arrays: digits, MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN."""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from dimred.data.base import held_out
from dimred.data.files import checked, damaged_data, fetch, md5_of, reading
from dimred.data.memory import Examples, Memory
from dimred.errors import counted


def examples(images: np.ndarray, labels: np.ndarray) -> Examples:
    return Examples(
        torch.tensor(images, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64)
    )


@dataclass(kw_only=True)
class Digits(Memory):
    """scikit-learn's 1797 handwritten digits, 1x8x8; needs no file. A fixed fifth of every class is
    the test set."""

    name = "digits"
    md5 = "9b335364a7bfd63947c7480a5bd51f2d"

    def read(self) -> tuple[Examples, Examples]:
        # its file alone: to import scikit-learn takes longer than to train on it
        package = importlib.metadata.distribution("scikit-learn")
        path = Path(str(package.locate_file("sklearn/datasets/data/digits.csv.gz")))
        lines = gzip.decompress(checked(path, self.md5)).decode().splitlines()
        table = np.loadtxt(lines, delimiter=",")  # 64 pixels from 0 to 16 and a label
        images, labels = table[:, :-1], table[:, -1].astype(int)
        grey = examples((images * 255 / 16).round().reshape(-1, 1, 8, 8), labels)
        train, test = held_out(labels, 1 / 5)
        return grey.at(train), grey.at(test)


@dataclass(kw_only=True)
class MNIST(Memory):
    """1x28x28. Read in place from data_dir/MNIST/raw/*-ubyte.gz, as torchvision lays it out."""

    data_dir: str

    name = "MNIST"
    folder = "MNIST"
    mirrors: ClassVar[tuple[str, ...]] = (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    )
    files: ClassVar[dict[str, str]] = {  # with their md5
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    # Checksums of the content, since the same bytes may have been compressed again.
    content_md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
    }

    def read(self) -> tuple[Examples, Examples]:
        train, train_labels, test, test_labels = (
            self.array(name, md5) for name, md5 in self.files.items()
        )
        return examples(train[:, None], train_labels), examples(test[:, None], test_labels)

    def array(self, name: str, md5: str) -> np.ndarray:
        folder = Path(self.data_dir).expanduser() / self.folder / "raw"
        files = ", ".join(self.files)
        expected = f"{self.name} is read from {files} in {folder}: put them there, or set data_dir."
        path = fetch(folder / name, [mirror + name for mirror in self.mirrors], md5, expected)
        with reading(path, zlib.error):
            packed = path.read_bytes()
            content = gzip.decompress(packed)
        if md5_of(packed) != md5 and md5_of(content) != self.content_md5.get(name):
            raise damaged_data(
                path, f"its md5 is not {md5}, and its content is not the published one either"
            )
        return idx(path, content)


def idx(path: Path, content: bytes) -> np.ndarray:
    """The uint8 array of an IDX file: two zero bytes, the type 8, the number of axes, their lengths
    as big-endian int32, the values."""
    if (
        len(content) < 4
        or content[:3] != b"\0\0\x08"
        or len(content) < (start := 4 + 4 * content[3])
    ):
        raise damaged_data(path, "not an IDX file of bytes")
    shape = np.frombuffer(content[4:start], ">i4")
    if len(content) != start + np.prod(shape, dtype=np.int64):
        raise damaged_data(
            path,
            f"its header states a size of {'x'.join(map(str, shape))}, and it has "
            f"{counted(len(content) - start, 'byte')}",
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


@dataclass(kw_only=True)
class FashionMNIST(MNIST):
    """1x28x28 articles of clothing in MNIST's format, from data_dir/FashionMNIST/raw."""

    name = "Fashion-MNIST"
    folder = "FashionMNIST"
    mirrors: ClassVar[tuple[str, ...]] = (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    )
    files: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    content_md5: ClassVar[dict[str, str]] = {}


@dataclass(kw_only=True)
class CIFAR10(Memory):
    """3x32x32, from data_dir/cifar-10-binary.tar.gz: the binary version, because the Python version
    is a pickle."""

    data_dir: str

    name = "CIFAR-10"
    archive = "cifar-10-binary.tar.gz"
    md5 = "c32a1d4ab5d03f1284b67883e8d87530"
    label_bytes = 1
    # file of a similar data set: its name, to suggest if the archive is missing
    alike: ClassVar[dict[str, str]] = {"cifar10-jpeg.tar.xz": "cifar10_jpeg"}

    def read(self) -> tuple[Examples, Examples]:
        folder = Path(self.data_dir).expanduser()
        expected = (
            f"{self.name} is read from {self.archive} in {folder}: put it there, or set data_dir."
        )
        for file, dataset in self.alike.items():
            if (folder / file).exists():
                expected += f" The same images as JPEGs are there: try dataset={dataset}."
        path = fetch(
            folder / self.archive,
            [f"https://www.cs.toronto.edu/~kriz/{self.archive}"],
            self.md5,
            expected,
        )
        with reading(path, tarfile.TarError, zlib.error):
            files = tar_files(checked(path, self.md5), ".bin")
        train = b"".join(files[name] for name in sorted(files) if "test" not in name)
        test = b"".join(files[name] for name in files if "test" in name)
        return records(path, train, self.label_bytes), records(path, test, self.label_bytes)


def tar_files(archive: bytes, suffix: str) -> dict[str, bytes]:
    """Name and content of the regular files of a .tar.gz whose names end in `suffix`."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        opened = (
            (Path(member.name).name, tar.extractfile(member))
            for member in tar
            if member.name.endswith(suffix)
        )
        return {name: file.read() for name, file in opened if file}


def records(path: Path, content: bytes, label_bytes: int) -> Examples:
    """CIFAR's records: `label_bytes` labels, the fine one last, then 3x32x32 pixels."""
    size = label_bytes + 3 * 32 * 32
    if not content or len(content) % size:
        raise damaged_data(path, f"{len(content)} bytes are no whole number of records of {size}")
    rows = np.frombuffer(content, np.uint8).reshape(-1, size)
    return examples(rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1])


@dataclass(kw_only=True)
class CIFAR100(CIFAR10):
    """3x32x32 with the 100 fine labels, from data_dir/cifar-100-binary.tar.gz."""

    name = "CIFAR-100"
    archive = "cifar-100-binary.tar.gz"
    md5 = "03b5dce01913d631647c71ecec9e9cb8"
    label_bytes = 2
    alike: ClassVar[dict[str, str]] = {}


@dataclass(kw_only=True)
class SVHN(Memory):
    """3x32x32 house numbers, from data_dir/SVHN/{train,test}_32x32.mat; the digit 0 is class 0
    (published: 10)."""

    data_dir: str

    name = "SVHN"
    files: ClassVar[dict[str, str]] = {  # with their md5
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    }

    def read(self) -> tuple[Examples, Examples]:
        train, test = (self.part(name, md5) for name, md5 in self.files.items())
        return train, test

    def part(self, name: str, md5: str) -> Examples:
        from scipy.io import loadmat  # slow to import

        folder = Path(self.data_dir).expanduser() / "SVHN"
        expected = (
            f"SVHN is read from train_32x32.mat and test_32x32.mat in {folder}: put them there, or "
            "set data_dir."
        )
        url = f"http://ufldl.stanford.edu/housenumbers/{name}"
        path = fetch(folder / name, [url], md5, expected)
        with reading(path, ValueError, KeyError, zlib.error):
            mat = loadmat(io.BytesIO(checked(path, md5)))
            return examples(mat["X"].transpose(3, 2, 0, 1), mat["y"].reshape(-1) % 10)
