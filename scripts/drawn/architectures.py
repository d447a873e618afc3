"""Prunes architectures of timm and torchvision by four methods, in two steps each.

Of every network: FLOPs of a step are those of torch.utils.flop_counter, sums whose order may differ
between runs are named, every method meets its sparsity to the weight, and of SNIP and FreezeNet,
files and exports agree, and the network comes back from its compact file with the same logits. A
torch.export program is written and executed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import main as drawn
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dimred.cli import export
from dimred.conformance.sums import UnorderedSums, deterministic_kernels
from dimred.conformance.torch_flops import counted
from dimred.runs.config.composition import composed
from dimred.runs.config.files import GROUPS
from dimred.runs.environment import prepare_process
from dimred.runs.nets import build_net
from dimred.runs.run import run
from dimred.training.flops import Costs

#: the smallest networks of each family, with the pixels of the smallest images that they take
TIMM = {
    **{"resnet10t": 32, "vit_tiny_patch16_224": 32, "mobilenetv3_small_050": 32},
    **{"convnext_atto": 32, "regnety_002": 32, "deit_tiny_distilled_patch16_224": 32},
    **{"gmlp_ti16_224": 32, "nf_regnet_b0": 32, "maxvit_rmlp_pico_rw_256": 64},
    **{"resnext26ts": 32, "efficientnet_b0": 32, "densenet121": 32, "levit_128s": 64},
    **{"mobilenetv2_035": 32, "regnetx_002": 32, "xcit_nano_12_p16_224": 32, "dla46_c": 32},
    **{"mobilevit_xxs": 64, "ghostnet_100": 32, "coat_lite_tiny": 32, "pit_ti_224": 64},
    **{"edgenext_xx_small": 64, "poolformer_s12": 32, "repvgg_a0": 32, "cait_xxs24_224": 32},
    **{"mixer_s32_224": 64, "resmlp_12_224": 32, "swin_tiny_patch4_window7_224": 32},
}
TORCHVISION = {
    **{"mobilenet_v3_small": 32, "regnet_y_400mf": 32, "shufflenet_v2_x0_5": 32},
    **{"squeezenet1_1": 32, "mnasnet0_5": 32, "resnet18": 32},
}
NETWORKS = [("timm", *each) for each in TIMM.items()]
NETWORKS += [("torchvision", *each) for each in TORCHVISION.items()]
#: two steps, in which RigL rewires and GMP prunes
METHODS = {
    "snip": ["method.examples=8"],
    "freezenet": ["method.examples=8"],
    "rigl": ["method.update_every=1", "allocation=erk"],
    "gmp": ["method.update_every=1"],
}

#: files of the others have the form of SNIP's
EXPORTED = ("snip", "freezenet")
COLUMNS = ("weights", *METHODS, "program", "unordered sums")


def configured(folder: Path, model: str, name: str, size: int) -> list[str]:
    return [
        *(f"model={model}", f"model.name={name}", f"dataset.resize={size}", "sparsity=0.9"),
        *("dataset=imagefolder", f"dataset.path={folder / 'images'}", "dataset.name=noise"),
        *("recipe.steps=2", "recipe.batch_size=8", "recipe.lr=0.001", "device=cpu"),
        f"outputs={folder}",
    ]


def write_images(folder: Path, size: int = 64) -> None:
    """Noise of two classes: 12 images of each to train on, 4 to validate and 4 to test."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for label in ("a", "b"):
            place = folder / "images" / split / label
            place.mkdir(parents=True)
            for i in range(count):
                pixels = draws.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")


def check_flops(settings: list[str], size: int) -> int:
    """The number of weights of the network, whose FLOPs are those of PyTorch's counter."""
    shape = (3, size, size)
    net = build_net(composed(settings), shape, 2)
    costs = Costs(net, shape)
    costs.step(2, dense_grad=False)
    step = sum(counted(net, torch.randn(2, *shape)))
    assert costs.steps == step, f"FLOPs of a step: {costs.steps}, not {step}"
    net.train(False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(torch.randn(1, *shape))
    forward = counter.get_total_flops()
    assert costs.dense_forward == forward, f"FLOPs: {costs.dense_forward}, not {forward}"
    return net.total


def check_method(method: str, settings: list[str]) -> Path:
    """Train, compare files and exports; the folder of the run."""
    cfg = composed([f"method={method}", *METHODS[method], *settings])
    choices = dict.fromkeys(GROUPS, "none") | {"method": method}
    result = run(cfg, choices)
    budget = round(0.1 * result["total"])
    assert result["dim"] == budget, f"{result['dim']} weights trained of a budget of {budget}"
    with np.load(Path(result["folder"]) / "masks.npz") as masks:
        kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == budget, f"{kept} weights in the masks of a budget of {budget}"
    if method in EXPORTED:
        drawn.check_exports(cfg, result, Path(result["folder"]))
    return Path(result["folder"])


def unordered_sums(settings: list[str], size: int) -> str:
    """The operations of a step whose bits may differ between runs."""
    net = build_net(composed(settings), (3, size, size), 2)
    with deterministic_kernels(), UnorderedSums() as sums:
        F.cross_entropy(net(torch.randn(2, 3, size, size)), torch.tensor([0, 1])).backward()
    return ", ".join(sorted(name for name, _ in sums.found)) or "none"


def check_program(folder: Path) -> None:
    """Write a torch.export program, which the command executes and compares."""
    with drawn.silence():
        program = folder.parent / "program.pt2"
        assert export.run([str(folder), str(program), "--format", "torch-export"]) == 0


def checks(
    model: str, name: str, size: int, folder: Path, columns: Sequence[str] = COLUMNS
) -> Iterator[tuple[str, str]]:
    """The cells of a row: the column, and "ok", a number, or what is wrong."""
    settings, runs = configured(folder, model, name, size), list[Path]()
    for column in columns:
        try:
            cell = "ok"
            if column == "weights":
                cell = f"{check_flops(settings, size):,}"
            elif column == "unordered sums":
                cell = unordered_sums(settings, size)
            elif column == "program":
                check_program(runs[0])
            else:
                runs.append(check_method(column, settings))
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            cell = f"{type(error).__name__}: {first}"
        yield column, cell


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of architectures; by default all")
    asked = parser.parse_args().names
    prepare_process()
    torch.set_num_threads(1)
    logging.getLogger("dimred").setLevel(logging.CRITICAL)
    rows, failures = [], 0
    for model, name, size in NETWORKS:
        if asked and name not in asked:
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            write_images(Path(folder))
            cells = dict(checks(model, name, size, Path(folder)))
        wrong = {key: cell for key, cell in cells.items() if ":" in cell}
        failures += bool(wrong)
        row = [f"{model} {name}", f"{size}x{size}", cells["weights"].partition(":")[0]]
        row += ["no" if key in wrong else cell for key, cell in cells.items() if key != "weights"]
        rows.append("| " + " | ".join(row) + " |")
        print(f"{rows[-1]} {time.monotonic() - start:.0f} s", flush=True)
        for key, cell in wrong.items():
            print(f"    {key}: {cell}", flush=True)
    print("\n| network | images | weights | " + " | ".join(COLUMNS[1:]) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS[1:]))
    print("\n".join(rows))
    print(f"\n{len(rows) - failures} of {len(rows)} without a failure")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
