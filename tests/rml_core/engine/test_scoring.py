"""Figures of an assembled volume: each voxel once, whatever it is cut into."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rml_core.assembly.finishing import totalled
from rml_core.config.section import parse
from rml_core.data import Data
from rml_core.data.prepared import Prepared, prepare
from rml_core.data.survey import survey
from rml_core.engine import scoring
from rml_core.engine.scoring import Scoring

SHAPE = (9, 8, 7)
RANDOM = np.random.default_rng(0)
# Gaps along the first axis, a remainder that is left out along the last.
SLICER = {"name": "bricks", "sizes": [2, 4, 3], "strides": [3, 2, 3], "discard_remainders": True}
EXTENT = (8, 8, 6)
COVERED = np.flatnonzero(np.arange(8) % 3 < 2)


def prepared(folder: Path, target: np.ndarray, **keys: Any) -> Prepared:
    np.save(folder / "volume.npy", np.zeros(SHAPE, np.float32))
    np.save(folder / "target.npy", target)
    paths = {"test_input_path": "volume.npy", "test_target_path": "target.npy"}
    data = parse(Data, {"type": "numpy", **paths, "slicers": [SLICER], **keys}, "neural_network.data")
    found = survey(data, "test", folder)
    assert found is not None
    return prepare(found, data, folder / "prepared")


def scored(score: Scoring, values: np.ndarray) -> dict[str, Any]:
    """In regions of 3 x 5 x 6 voxels, through a pickle."""
    score = pickle.loads(pickle.dumps(score))
    counts = []
    for first in range(0, 8, 3):
        for second in range(0, 8, 5):
            at = (slice(first, min(first + 3, 8)), slice(second, min(second + 5, 8)), slice(0, 6))
            found = score(0, at, np.ascontiguousarray(values[(slice(None), *at)]))
            counts += [found] if found is not None else []
    return score.figures(totalled(counts))


def scoring_of(test: Prepared, channels: int, source: str = "", **options: Any) -> Scoring:
    assert test.target is not None
    options = {"mapped": None, "ignored": None, "ignore_index": None} | options
    return Scoring(test, test.target, channels, source, cache_bytes=0, **options)


@pytest.fixture(autouse=True, params=[1 << 18, 20, 3])
def _strips(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "STRIP", request.param)


@pytest.mark.parametrize("dtype", ["f4", "i2"])
def test_values(tmp_path: Path, dtype: str):
    """As the network gets them: after the target's own transforms."""
    target = (RANDOM.standard_normal((2, *SHAPE)) * 9).astype(dtype)
    values = RANDOM.standard_normal((2, *EXTENT)).astype(np.float32)
    test = prepared(tmp_path, target, target_transforms=[{"normalize": {"mean": 1, "std": 2}}])
    assert Scoring.fits(test)
    errors = (values - (target[:, :8, :, :6] - 1.0) / 2)[:, COVERED]
    values[:, np.delete(np.arange(8), COVERED)] = np.nan
    found = scored(scoring_of(test, 2), values)
    assert found["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert found["rmse"] == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-6)


@pytest.mark.parametrize(("channels", "source"), [(3, "softmax"), (1, "sigmoid"), (1, "logits")])
def test_classes(tmp_path: Path, channels: int, source: str):
    """Values 10, 20, 30 are classes, 7 is none."""
    raw = RANDOM.choice([10, 20, 30, 7] if channels == 3 else [10, 20, 7], SHAPE).astype(np.uint8)
    values = RANDOM.standard_normal((channels, *EXTENT)).astype(np.float32)
    test = prepared(tmp_path, raw, target_is_mask=True)
    mapped = (10, 20, 30) if channels == 3 else (10, 20)
    found = scored(scoring_of(test, channels, source, mapped=mapped, ignore_index=7), values)
    threshold = {"sigmoid": 0.5, "logits": 0.0}.get(source)
    classes = values.argmax(0) if threshold is None else values[0] >= threshold
    classes, truth = classes[COVERED], raw[:8, :, :6][COVERED]
    kept = truth != 7
    for number, value in enumerate(mapped):
        there, predicted = truth == value, (classes == number) & kept
        assert found["support"][number] == there.sum()
        dice = 2 * (there & predicted).sum() / (there.sum() + predicted.sum())
        assert found["dice"][number] == pytest.approx(dice)
    assert found["classes"] == list(mapped)


def test_nothing_to_count(tmp_path: Path):
    score = scoring_of(prepared(tmp_path, np.zeros(SHAPE, np.float32)), 1)
    assert score(0, (slice(2, 3), slice(0, 8), slice(0, 6)), np.full((1, 1, 8, 6), np.nan, np.float32)) is None


def test_targets_that_are_made_on_the_way_are_no_volume(tmp_path: Path):
    test = prepared(tmp_path, np.zeros(SHAPE, np.float32))
    assert Scoring.fits(test)
    np.save(tmp_path / "pictures.npy", np.zeros((3, 8, 8, 4), np.uint8))
    data = {"type": "numpy", "test_input_path": "pictures.npy", "slicers": [{"sizes": [8, 8, 1]}]}
    data |= {"transforms": [{"random_patches": {"number": 1, "size": 2}}]}
    section = parse(Data, data, "neural_network.data")
    found = survey(section, "test", tmp_path)
    assert found is not None
    assert not Scoring.fits(prepare(found, section, tmp_path / "prepared"))
