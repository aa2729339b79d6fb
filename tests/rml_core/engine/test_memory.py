"""What an allocator keeps: no page is mapped again for what was freed before."""

import subprocess
import sys

import numpy as np
import torch

from rml_core.engine.memory import most_held_mb


def test_freed_memory_is_used_again():
    program = """
import resource, torch
from rml_core.engine.memory import keep_what_is_freed
keep_what_is_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(1 << 21) for _ in range(16)]  # 8 MiB each
    del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([faults() for _ in range(5)][-1])
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # 16 blocks of 8 MiB are 32768 pages of 4 KiB.
    assert int(finished.stdout) < 1000


def test_the_most_that_was_held_stays_when_it_is_let_go():
    cpu = torch.device("cpu")
    block = np.ones(25_000_000)
    during = most_held_mb(cpu)
    del block
    assert during.keys() == {"memory_mb"}
    assert most_held_mb(cpu)["memory_mb"] >= during["memory_mb"] > 200
