"""The sheet of pictures shows every transform as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

import cv2
import numpy as np

from rml_core.transforms import TRANSFORMS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_sheet_shows_every_transform() -> None:
    script = runpy.run_path(str(DOCS / "make_augmentation.py"))
    assert sorted(script["EXAMPLES"]) == sorted(TRANSFORMS)
    kept, made = cv2.imread(str(DOCS / "augmentation.png")), script["sheet"]()
    assert kept is not None
    assert kept.shape == made.shape
    # Letters, and the last bit of what is interpolated, may differ from one OpenCV to another.
    assert np.abs(kept.astype(int) - made).mean() < 1, "`python docs/make_augmentation.py` writes it anew"
