"""The statistics of parameters and gradients against NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from rml_core.engine import debug
from rml_core.engine.step import Training, step

FLOATS = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None, max_examples=50)
@given(st_numpy.arrays(np.float32, st_numpy.array_shapes(min_dims=0, max_side=5), elements=FLOATS))
def test_statistics_are_numpys(values: np.ndarray):
    wide = values.astype(np.float64)
    found = debug.statistics(torch.from_numpy(values))
    assert list(found) == ["mean", "std", "min", "max", "norm"]
    expected = [wide.mean(), wide.std(), wide.min(), wide.max(), np.sqrt((wide**2).sum())]
    assert list(found.values()) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_gradients_are_those_that_the_update_took(training: Callable[..., Training], tmp_path: Path):
    """Unscaled, clipped; frozen weights have none."""
    state = training("fp16", clip_norm=0.1)
    state.network.frozen = torch.nn.Parameter(torch.tensor([1.0, 3.0]), requires_grad=False)
    inputs, targets = torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[1.0]])
    step(state, inputs, targets, share=1, first=True, update=True)
    debug.write(state.network, tmp_path / "debug_1.json")
    table = json.loads((tmp_path / "debug_1.json").read_text())
    assert list(table) == ["weight", "bias", "frozen"]
    assert table["frozen"] == {"parameter": {"mean": 2, "std": 1, "min": 1, "max": 3, "norm": pytest.approx(10**0.5)}}
    norms = [table[name]["gradient"]["norm"] for name in ("weight", "bias")]
    assert np.hypot(*norms) == pytest.approx(0.1, rel=1e-3)


def test_what_is_not_finite_is_null(training: Callable[..., Training], tmp_path: Path):
    """An update of fp16 that is left out has gradients that overflow."""
    state = training("fp16")
    step(state, torch.full((1, 3), 300.0), torch.zeros(1, 1), share=1, first=True, update=True)
    debug.write(state.network, tmp_path / "debug_1.json")
    text = (tmp_path / "debug_1.json").read_text()
    assert json.loads(text)["weight"]["gradient"]["norm"] is None
    assert "Infinity" not in text
    assert "NaN" not in text
