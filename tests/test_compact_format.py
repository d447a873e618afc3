"""The format of compact files: old files, the specification, damaged and forged files."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from compact import Json, same, sparse
from conftest import ROOT
from scipy import special

from dimred.errors import UserError
from dimred.runs.compact_file import as_bytes, load_compact
from dimred.storage.compact_bytes import CHECKSUM, MAGIC, START, VERSION, checksum

# -- ten years later --------------------
#: dimred train method=NAME seed=3 recipe.epochs=10, with sparsity=0.98 (kaiming_normal),
#: sparsity=0.5 model.init=torch_default (uniform), method.dim=30 model.init=xavier_uniform
#: method.lr_scale=3; checksum and first logits
GOLDEN = {
    "freezenet": (
        "758c64ecc079ea57d9e9239b99a47ed4",
        [-3.24478, 1.81941, 2.65235, 0.91692, 0.28054],
    ),
    "signed_supermask": (
        "6f66e8ec5b764b0b895432df66c2baa9",
        [-0.84086, 0.50708, 0.09095, -0.33369, -0.35503],
    ),
    "intrinsic_dimension": (
        "be08fc0dadbcddde7b9b4d2d4084548e",
        [-0.22119, -0.3576, 0.41186, 0.44822, -0.31783],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_files_of_version_1_can_still_be_read(name: str) -> None:
    """If this fails, files that people have written cannot be read any more: repair the reader, not
    the test."""
    model = load_compact(ROOT / f"tests/golden/{name}.dimred")
    digest = hashlib.blake2b(digest_size=16)
    for key, value in sorted(model.state_dict().items()):
        array = value.numpy()
        digest.update(key.encode() + array.astype(array.dtype.newbyteorder("<")).tobytes())
    with torch.no_grad():
        logits = model(torch.arange(64.0).view(1, 1, 8, 8) / 64)[0, :5].tolist()
    assert (digest.hexdigest(), pytest.approx(logits, abs=1e-4)) == GOLDEN[name]


def read_by_the_page(content: bytes) -> dict[str, np.ndarray]:
    """What docs/storage.md says, in plain Python, with none of dimred's code and scipy's
    quantiles."""
    header, at, found = *header_of(content), {}
    for t in header["tensors"]:
        size, count, code, base = (
            int(np.prod(t["shape"])),
            t.get("count", 0),
            t.get("code"),
            t.get("base", 0),
        )
        middle, end = at + t["bytes"][0], at + sum(t["bytes"])
        code_bytes, values, at = content[at:middle], content[middle:end], end
        positions = list(range(size)) if count == size else []
        if code == "bitmap":
            positions = [i for i, bit in enumerate(bits(code_bytes)) if bit]
        elif code == "delta":
            k, low_bytes, position = code_bytes[0], (count * code_bytes[0] + 7) // 8, -1
            low, unary, positions = (
                bits(code_bytes[1 : 1 + low_bytes]),
                iter(bits(code_bytes[1 + low_bytes :])),
                [],
            )
            for i in range(count):
                high = next(zeros for zeros in range(size + 1) if next(unary))
                position += 1 + (high << k) + sum(low[i * k + j] << j for j in range(k))
                positions.append(position)
        out = (
            np.full(size, base, np.float32)
            if not isinstance(base, dict)
            else drawn_by_the_page(size, **base)
        )
        if t.get("scale") is None:
            out[positions] = np.frombuffer(values, "<f4")
        else:
            kept = np.float32(t["scale"]) * (
                np.sign(out[positions]) if t.get("signs") else out[positions]
            )
            out, flips = np.zeros(size, np.float32), bits(values)[:count] or [0] * count
            out[positions] = np.where(flips, -kept, kept)
        found[t["name"]] = out.reshape(t["shape"])
    return found


def header_of(content: bytes) -> tuple[Json, int]:
    length = int.from_bytes(content[10:14], "little")
    return json.loads(zlib.decompress(content[14 : 14 + length])), 14 + length


def bits(content: bytes) -> list[int]:
    return [byte >> i & 1 for byte in content for i in range(8)]


def drawn_by_the_page(
    size: int, seed: int, stream: int, kind: str, a: float, b: float
) -> np.ndarray:
    words = np.random.Philox(key=[seed, stream]).random_raw(size) >> np.uint64(12)
    u = (2 * words.astype(float) + 1 - 2.0**52) / 2.0**53
    return (a + b * special.ndtri(0.5 + u) if kind == "normal" else a + (b - a) * (u + 0.5)).astype(
        np.float32
    )


@pytest.mark.parametrize("name", ["freezenet", "signed_supermask"])
def test_the_page_is_enough_to_read_a_file(name: str) -> None:
    path = ROOT / f"tests/golden/{name}.dimred"
    for key, value in read_by_the_page(path.read_bytes()).items():
        np.testing.assert_allclose(value, load_compact(path).state_dict()[key].numpy(), rtol=2e-7)


# -- bad files --------------------
@pytest.fixture(scope="module")
def whole() -> bytes:
    return as_bytes(*sparse(0.02, "init", "model=lenet300"))


def refused(content: bytes, path: Path, message: str) -> str:
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_compact(path)
    return str(caught.value)


def test_every_damage_is_found_by_the_checksum(whole: bytes, tmp_path: Path) -> None:
    for at in (8, 11, 20, len(whole) // 2, len(whole) - 1):
        refused(
            whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :],
            tmp_path / "f",
            "f is damaged: its checksum does",
        )
    for length in (9, 20, 40, len(whole) - 1):
        refused(
            whole[:length],
            tmp_path / "f",
            "f is damaged: its checksum does not match its content. Copy or export",
        )
    refused(whole + b"\0", tmp_path / "f", "f is damaged")


def test_other_newer_and_missing_files_have_different_messages(
    whole: bytes, tmp_path: Path
) -> None:
    refused(b"", tmp_path / "f", "f is no compact file of dimred")
    refused(
        b"PK\3\4" + whole,
        tmp_path / "f",
        "f is no compact file of dimred. dimred export RUN FILE --format comp",
    )
    newer = MAGIC + struct.pack("<H", VERSION + 1) + whole[10:-CHECKSUM]
    refused(
        newer + checksum(newer),
        tmp_path / "f",
        "has version 2 of the compact format, and this .* up to 1. Update",
    )
    with pytest.raises(UserError, match=r"cannot read .*nowhere \(No such file"):
        load_compact(tmp_path / "nowhere")


def forged(content: bytes, change: Callable[[Json], object]) -> bytes:
    """A file with another header and the right checksum."""
    length = START.unpack_from(content)[2]
    header = json.loads(zlib.decompress(content[START.size : START.size + length]))
    change(header)
    packed = zlib.compress(json.dumps(header).encode())
    start = (
        START.pack(MAGIC, VERSION, len(packed)) + packed + content[START.size + length : -CHECKSUM]
    )
    return start + checksum(start)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["tensors"].pop(),
        lambda h: h.pop("tensors"),
        lambda h: h["tensors"][0].update(name="fc9.weight"),
        lambda h: h["tensors"][0].update(shape=[300, 65]),
        lambda h: h["tensors"][0].update(count=3),
        lambda h: h["tensors"][0].update(code="../x"),
        lambda h: h["tensors"][0].update(dtype="O"),
        lambda h: h["tensors"][0].update(bytes=[10**9, -(10**9)]),
        lambda h: h.update(classes=11),
        lambda h: h["tensors"][0]["base"].update(stream=9),
        lambda h: h["tensors"][0]["base"].update(kind="cauchy"),
        lambda h: h["tensors"][0]["base"].update(seed=-1),
        lambda h: h.update(shape=["a"]),
        lambda h: h.update(tensors=7),
        lambda h: h["tensors"][0].update(base="x"),
        lambda h: h["tensors"][0].update(scale=1.0),
        lambda h: h["model"].pop("init"),
        lambda h: h["model"].update(depth=7),
        lambda h: h.pop("model"),
    ],
)
def test_a_whole_file_that_describes_no_network_is_refused_in_one_message(
    whole: bytes, change: Callable[[Json], object], tmp_path: Path
) -> None:
    message = refused(
        forged(whole, change), tmp_path / "f", "f is whole, but does not describe a network of this"
    )
    assert message.count("\n") == 0 and re.search(
        r"written by (dimred 0\.|another version)", message
    )


def test_a_file_runs_no_code_and_no_path_in_it_is_read(whole: bytes, tmp_path: Path) -> None:
    for target in ("os.mkdir", "dimred.models.zoo.nn.Linear", "subprocess.run"):
        model = {"_target_": target, "path": str(tmp_path / "made")}
        refused(
            forged(whole, lambda h, model=model: h.update(model=model)),
            tmp_path / "f",
            f"asks for code that is not dimred's: {target}. If you trust it, add --trust",
        )
    assert not (tmp_path / "made").exists()
    nested = forged(whole, lambda h: h["model"].update(init={"_target_": "os.getcwd"}))
    refused(nested, tmp_path / "f", "asks for code that is not dimred's: os.getcwd")
    for words in (
        f"${{oc.create:{{_target_:os.mkdir,path:{tmp_path}/made}}}}",
        "${oc.env:HOME}",
        "${classes}",
    ):
        refused(
            forged(whole, lambda h, words=words: h["model"].update(init=words)),
            tmp_path / "f",
            f"asks for code that is not dimred's: {re.escape(words)}",
        )
    refused(
        forged(whole, lambda h: h["model"].update({"_target_": ["os", "getcwd"]})),
        tmp_path / "f",
        "asks for code",
    )
    assert not (tmp_path / "made").exists()
    (tmp_path / "f").write_bytes(
        forged(whole, lambda h: h["model"].update(pretrained="/nowhere.safetensors"))
    )
    assert same(load_compact(tmp_path / "f"), sparse(0.02, "init", "model=lenet300")[0])
