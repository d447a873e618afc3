"""The settings that a process makes for speed, checked in a process of its own."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from dimred.runs.environment import prepare_process
if sys.argv[1] == "settled":
    prepare_process()
import torch
def faults():
    for _ in range(20):
        torch.ones(2**24)       # 64 MB, written and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
print(faults() - before)
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
