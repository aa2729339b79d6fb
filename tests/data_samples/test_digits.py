"""The committed digits are what the kept script writes from scikit-learn's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

SAMPLES = Path(__file__).parents[2] / "data_samples"


def images(folder: Path) -> dict[str, NDArray[np.uint8]]:
    return {
        str(path.relative_to(folder)): np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        for path in folder.rglob("*.png")
    }


@pytest.fixture(scope="module")
def committed() -> dict[str, NDArray[np.uint8]]:
    return images(SAMPLES / "digits")


def test_the_script_writes_them_again(committed: dict[str, NDArray[np.uint8]], tmp_path: Path) -> None:
    subprocess.run([sys.executable, SAMPLES / "make_digits.py", tmp_path], check=True)
    again = images(tmp_path)
    assert sorted(again) == sorted(committed)
    assert all(np.array_equal(again[name], committed[name]) for name in again)


def test_each_image_of_the_source_is_there_once(committed: dict[str, NDArray[np.uint8]]) -> None:
    source = load_digits()
    by_index = {int(Path(name).stem): (Path(name).parts[1], image) for name, image in committed.items()}
    assert sorted(by_index) == list(range(len(source.images)))
    assert len(committed) == len(by_index)
    for index, (digit, image) in by_index.items():
        assert digit == str(source.target[index])
        assert image.dtype == np.uint8
        assert np.array_equal(np.round(image / 255 * 16), source.images[index])


def test_a_fifth_of_each_digit_is_for_testing(committed: dict[str, NDArray[np.uint8]]) -> None:
    for digit in range(10):
        train, test = (sum(name.startswith(f"{part}/{digit}/") for name in committed) for part in ("train", "test"))
        assert abs(test - (train + test) / 5) < 1
