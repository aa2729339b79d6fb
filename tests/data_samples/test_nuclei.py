"""The committed nuclei are what the kept script writes from the package's pictures, and their run file learns them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np

SAMPLES = Path(__file__).parents[2] / "data_samples"
NUCLEI = {path.stem: np.load(path) for path in (SAMPLES / "nuclei").glob("*.npy")}


def test_what_is_kept() -> None:
    kept = {name: (array.dtype.name, array.shape) for name, array in NUCLEI.items()}
    assert kept == {
        "train_image": ("uint16", (352, 512)),
        "train_mask": ("uint8", (352, 512)),
        "test_image": ("uint16", (144, 512)),
        "test_mask": ("uint8", (144, 512)),
    }
    assert all(set(np.unique(NUCLEI[f"{part}_mask"])) == {0, 1} for part in ("train", "test"))
    # Nuclei shine.
    for part in ("train", "test"):
        image, mask = NUCLEI[f"{part}_image"], NUCLEI[f"{part}_mask"]
        assert image[mask == 1].mean() > 2 * image[mask == 0].mean()


def test_the_script_writes_them_again(tmp_path: Path) -> None:
    """From TIFF files of the package's size, whose rows between the parts are in neither."""
    numbers = np.arange(1, 513, dtype=np.uint16)
    for name, kind in (("img2d.tif", "image"), ("mask2d.tif", "mask")):
        between = np.broadcast_to(numbers, (16, 512))
        whole = np.vstack([NUCLEI[f"train_{kind}"], between, NUCLEI[f"test_{kind}"]]).astype(np.uint16)
        cv2.imwrite(str(tmp_path / name), whole if kind == "image" else whole * numbers)
    subprocess.run([sys.executable, SAMPLES / "make_nuclei.py", tmp_path, tmp_path / "again"], check=True)
    again = {path.stem: np.load(path) for path in (tmp_path / "again").iterdir()}
    assert again.keys() == NUCLEI.keys()
    for name, array in again.items():
        assert array.dtype == NUCLEI[name].dtype
        np.testing.assert_array_equal(array, NUCLEI[name])


def test_the_run_file_learns_them(tmp_path: Path, rml: Callable[..., tuple[int, str, str]]) -> None:
    folder = shutil.copytree(SAMPLES, tmp_path / "data_samples", ignore=shutil.ignore_patterns("digits"))
    status, output, errors = rml("run", folder / "nuclei.json", "--untracked", "--set", "num_epochs=2")
    assert status == 0, output + errors
    lines = [json.loads(line) for line in (tmp_path / "demo" / "nuclei_metrics.jsonl").open()]
    assert lines[-1]["accuracy"] > 0.85
    with h5py.File(tmp_path / "demo" / "nuclei.h5") as file:
        probability = file["tiles"][:]
    assert probability.shape == (1, 144, 512)
    found, mask = probability[0] >= 0.5, NUCLEI["test_mask"] > 0
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.85
