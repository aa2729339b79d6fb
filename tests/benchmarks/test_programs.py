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
        "page",
        "phase_overhead",
        "cutting",
        "blocks",
        "volumes",
        "unet_volume",
        "large_volumes",
        "retraining",
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


@pytest.mark.slow
def test_growth_writes_its_page_and_its_plot(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FOLDER / "growth.py", tmp_path, "--quick"], capture_output=True, check=True)
    text = (tmp_path / "growth.md").read_text()
    assert "| volume | MiB | seconds | MB/s | memory, MB | plain h5py copy, s | MONAI, s | MONAI, MB |" in text
    assert "| writers | seconds | MB/s |" in text
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
