"""A run starts fast: it imports what it needs, and no more."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from dimred.net.eager import SGD, Adam, AdamW

#: slow to import, and most runs have no use for them
HEAVY = (
    *("torchvision", "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.onnx"),
    *("torch.utils.flop_counter", "sympy", "sklearn", "scipy", "numpy.ma", "matplotlib", "jinja2"),
    *("PIL", "onnx", "onnxruntime", "dimred.report", "dimred.conformance", "dimred.data.folder"),
    *("tensorboard", "wandb", "mlflow"),
)
PROGRAM = f"""
import sys
from dimred.cli.main import main

status = main(sys.argv[1:])
print("imported:", *(name for name in {HEAVY} if name in sys.modules))
sys.exit(status)
"""


def imported(*overrides: str, cwd: Path) -> list[str]:
    """Which of HEAVY a short run imports."""
    command = [sys.executable, "-c", PROGRAM, "train", "recipe.steps=8", *overrides]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("imported:")[2].split()


@pytest.mark.parametrize("method", ["snip", "rigl recipe.optimizer=adam"])
def test_a_run_imports_nothing_heavy(method: str, tmp_path: Path) -> None:
    assert imported(*f"method={method}".split(), cwd=tmp_path) == []


def test_heavy_packages_are_installed() -> None:
    """Else the test above could not fail."""
    assert all(find_spec(name) for name in HEAVY)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_optimisers_take_the_steps_of_pytorch(kind: type[torch.optim.Optimizer]) -> None:
    """They differ in what PyTorch adds for its compiler alone."""
    start, gradients = torch.randn(7), torch.randn(3, 7)

    def trained(kind: type[torch.optim.Optimizer]) -> torch.Tensor:
        parameter = torch.nn.Parameter(start.clone())
        optimizer = kind([parameter], lr=0.1, weight_decay=0.01)  # type: ignore[call-arg]
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        return parameter.detach()

    theirs = next(each for each in kind.__mro__ if each.__module__.startswith("torch.optim"))
    assert torch.equal(trained(kind), trained(theirs)) and torch.is_grad_enabled()
