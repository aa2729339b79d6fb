"""The tables of what a large volume is made of are those that the grids give."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_counts_of_the_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    assert importlib.import_module("on_paper").table() in (ROOT / "docs" / "scale.md").read_text()
