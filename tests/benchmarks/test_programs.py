"""Every benchmark still runs: tiny sizes, no time asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if "main(rows)" in path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "startup",
        "train_small_cnn",
        "train_unet",
        "jpeg_folder",
        "augmentation",
        "keras_fit",
        "build_densenet",
        "losses",
        "phase_overhead",
    ],
)
def test_it_prints_its_table(name: str) -> None:
    finished = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", "--quick"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    heading, *rows = finished.stdout.splitlines()
    assert heading.split() == ["name", "ours", "baseline", "ratio", "bound"]
    assert rows
