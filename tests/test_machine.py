"""The settings that a process makes for speed, checked in a process of its own."""

import subprocess
import sys

import pytest
import torch

from dimred.runs.environment import find_device

FAULTS = """
import resource, sys
from dimred.runs.environment import prepare_process
if sys.argv[1] == "settled":
    prepare_process()
import torch
def faults(times):
    for _ in range(times):
        torch.ones(2**24)       # 64 MB, written and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
# glibc keeps the first seven small pieces beside aligned blocks apart, so blocks do not fit again
before = faults(16)
print(faults(4) - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only glibc can be asked to keep freed memory"
)
def test_freed_memory_is_used_again_without_new_page_faults() -> None:
    settled, otherwise = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("settled", "as it is")
    )
    assert settled < 100 < otherwise


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_run_is_on_the_first_gpu_wherever_the_run_before_was(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device(name) == torch.device("cuda", 0)
    assert find_device("cuda:1") == torch.device("cuda", 1)
