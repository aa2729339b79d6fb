"""A short long life: `benchmarks/long_life.py` with a few runs, some of them side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "long_life.py"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_runs_leave_neither_processes_nor_files_behind(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    command = [sys.executable, BENCHMARK, "--together", "4", "--runs", "2", "--every", "1", "--json", found]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=1100, check=False)
    assert found.exists(), done.stdout + done.stderr
    looked = json.loads(found.read_text())
    assert [each["runs"] for each in looked] == [0, 4, 5, 6]
    assert done.stderr == "", "a run did not end well"
    assert [each["processes"] for each in looked] == [0, 0, 0, 0]
    assert looked[-1]["left"]["tmp"] == looked[1]["left"]["tmp"]
    # A worker has torch neither in its own process nor, once they have ended, in those of its runs.
    assert looked[-1]["memory"]["worker"] < 150
    assert max(looked[-1]["descriptors"].values()) < 100
