"""scripts/gpu: its parts train on a CPU, too, and none of them loses what the others have found."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dimred.runs.config.composition import composed

FOLDER = Path(__file__).parent.parent / "scripts/on_gpu"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the script, which computes on the CPU."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def imported(name: str) -> ModuleType:
        module = importlib.import_module(name)
        if hasattr(module, "DEVICE"):
            monkeypatch.setattr(module, "DEVICE", "cpu")
        return module

    yield imported
    for name in ("main", "bits", "networks", "packing", "steps"):
        sys.modules.pop(name, None)


def test_the_parts_that_compare_bits_train(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = script("bits")
    monkeypatch.setattr(bits, "names", lambda _: ["edge_popup"])
    monkeypatch.setattr(bits, "BASES", ("layer",))
    few = {name: bits.OPTIONS[name] for name in ("fp16", "mixed")}
    monkeypatch.setattr(bits, "OPTIONS", few)
    monkeypatch.setattr(bits, "IN_GROUPS", ("fp16",))
    assert bits.bits() == bits.ranks() == {"wrong": []}


def test_a_network_trains_and_is_compared(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, steps = script("networks"), script("steps")
    monkeypatch.setattr(networks, "DEVICE", "cpu")
    monkeypatch.setattr(networks, "STEPS", 2)
    assert not networks.differs("LeNet", networks.Case("LeNet-300-100", "rigl", {"mixup": 0.2}))
    for case in (networks.CASES | networks.COMPILED).values():
        assert networks.made(case.method)() and steps.recipe(**case.recipe)


def test_the_steps_that_are_timed_train(script: Any) -> None:
    steps = script("steps")
    build, shape = steps.MODELS["LeNet-300-100"]
    data = steps.noise(shape, 256, augment=False)
    batch = next(data.train_batches(128, 0, 0))
    steps.dense_step(build, *batch, False, False)()
    sparse = steps.Sparse(build, data, False, False, False, deterministic=False)
    before = [w.psi.clone() for w in sparse.train.net.weights.values()]
    sparse()
    after = [w.psi for w in sparse.train.net.weights.values()]
    assert not any(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_packed_runs_are_of_the_batch_size_that_their_images_are_counted_by(script: Any) -> None:
    packing = script("packing")
    assert composed(packing.RUN).recipe.batch_size == packing.BATCH_SIZE


def failing(error: Exception) -> dict[str, Any]:
    raise error


def run(main: ModuleType, monkeypatch: pytest.MonkeyPatch, **parts: Any) -> Any:
    """The exit status of the script with these parts."""
    monkeypatch.setattr(main, "PARTS", parts)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(sys, "argv", ["main.py", *parts, "--json", "gpu.json"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return ended.value.code


def test_a_part_that_fails_loses_nothing_of_the_others(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    main = script("main")
    monkeypatch.chdir(tmp_path)
    parts = {
        "first": lambda: {"wrong": [], "images": 7},
        "second": lambda: failing(ValueError("no")),
        "third": lambda: {"wrong": []},
    }
    assert run(main, monkeypatch, **parts) == 1
    found = json.loads(Path("gpu.json").read_text())
    assert found["first"]["images"] == 7 and found["third"]["wrong"] == []
    assert found["second"]["wrong"] == ["ValueError('no')"]
    # a part alone takes the place of what it has found before, and of nothing else
    assert run(main, monkeypatch, second=lambda: {"wrong": []}) == 0
    assert json.loads(Path("gpu.json").read_text())["first"]["images"] == 7


def test_parts_after_a_gpu_error_are_computed_by_another_process(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    main = script("main")
    monkeypatch.chdir(tmp_path)

    def execv(_: str, command: list[str]) -> None:
        raise SystemExit(command[1:])

    monkeypatch.setattr(os, "execv", execv)
    error = torch.AcceleratorError("CUDA error: device-side assert triggered")
    parts = {"first": lambda: failing(error), "second": dict, "third": dict}
    rest = ["main.py", "second", "third", "--json", "gpu.json"]
    assert run(main, monkeypatch, **parts) == rest
