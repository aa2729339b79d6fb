"""Curves that another process draws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from flows import report
from flows.page import drawing
from rml_core.engine.gallery import Gallery

HISTORY = [{"epoch": epoch, "train_loss": 1 / epoch, "test_loss": math.nan} for epoch in range(1, 4)]


def test_it_is_the_picture_of_the_report():
    random = np.random.default_rng(0)
    inputs = [random.random((1, 8, 8)).astype(np.float32) for _ in range(3)]
    gallery = Gallery(3, inputs, [random.random(2) for _ in inputs], [np.asarray(1) for _ in inputs], ["a", "b", "c"])
    given = (HISTORY, gallery, ("cat", "dog"), "softmax")
    assert drawing.drawn(*given) == report.draw(*given)


def test_what_goes_wrong_there_is_said():
    with pytest.raises(RuntimeError, match=r"^the curves are not drawn: KeyError: 'epoch'$"):
        drawing.drawn([{"train_loss": 1.0}], Gallery(), (), "")


def test_what_lies_in_the_working_directory_is_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "matplotlib.py").write_text("open('proof', 'w').close()")
    monkeypatch.chdir(tmp_path)
    assert drawing.drawn(HISTORY, Gallery(), (), "").startswith(b"\x89PNG")
    assert not (tmp_path / "proof").exists()
