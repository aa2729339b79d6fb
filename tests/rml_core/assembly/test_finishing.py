"""What is written of means: values in either precision, classes, nothing in gaps, and figures beside it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rml_core.assembly import finishing
from rml_core.assembly.finishing import totalled
from rml_core.assembly.layout import Assembly
from rml_core.slicers.grid import Axis, SliceGrid

# A gap behind every second slice along the first axis, and behind each along the last.
GAPS = SliceGrid("gaps", (Axis(11, 2, 4), Axis(6, 3, 3), Axis(9, 2, 3)))
NO_GAPS = SliceGrid("all", (Axis(6, 2, 2), Axis(6, 4, 2), Axis(5, 5, 5)))


def predictions(grid: SliceGrid, channels: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((grid.count, channels, *grid.sample_shape), np.float32)


def test_half_precision_says_what_it_has_no_room_for(path: Path, assemble, ring):
    outputs = np.zeros((NO_GAPS.count, 1, 2, 4, 5), np.float32)
    # 65504 is the largest; 65520 is rounded to infinity. Each voxel of these planes is in one slice.
    outputs[0, 0, 0, 0] = [65504, 65519, 65520, -70000, 1 / 3]
    outputs[-1, 0, -1, -1] = [np.inf, -np.inf, np.nan, 1e-8, -1e9]
    said = assemble(Assembly(path, (NO_GAPS,), 1, precision="half"), ring(), [outputs])
    assert (said.beyond, said.nbytes) == (3, 2 * 6 * 6 * 5)
    with h5py.File(path) as file:
        assert file["all"].dtype == np.float16
        assert file["all"][0, 0, 0].tolist() == [65504, 65504, np.inf, -np.inf, np.float16(1 / 3)]
        np.testing.assert_array_equal(file["all"][0, -1, -1], [np.inf, -np.inf, np.nan, np.float16(1e-8), -np.inf])


@pytest.mark.parametrize("strip", [finishing.STRIP, 200])
def test_half_precision_is_rounded_once(monkeypatch: pytest.MonkeyPatch, one_set, ring, strip: int):
    monkeypatch.setattr(finishing, "STRIP", strip)
    outputs = predictions(NO_GAPS, 2)
    single = one_set(NO_GAPS, ring(), outputs)
    np.testing.assert_array_equal(one_set(NO_GAPS, ring(), outputs, precision="half"), single.astype(np.float16))


@pytest.mark.parametrize("grid", [GAPS, NO_GAPS], ids=lambda grid: grid.name)
def test_classes_of_several_channels(monkeypatch: pytest.MonkeyPatch, one_set, ring, grid: SliceGrid):
    monkeypatch.setattr(finishing, "STRIP", 300)
    outputs = predictions(grid, 3)
    values = one_set(grid, ring(), outputs)
    classes = one_set(grid, ring(), outputs, output="argmax")
    assert (classes.dtype, classes.shape) == (np.uint8, (1, *grid.extent))
    missing = np.isnan(values[0])
    assert missing.any() == grid.gaps
    np.testing.assert_array_equal(classes[0], np.where(missing, 255, np.nan_to_num(values).argmax(0)))


def test_the_first_of_equal_channels_is_the_class(one_set, ring):
    outputs = np.zeros((NO_GAPS.count, 3, 2, 4, 5), np.float32)
    outputs[:, 1:] = 1
    assert (one_set(NO_GAPS, ring(), outputs, output="argmax") == 1).all()


@pytest.mark.parametrize("threshold", [0.5, 0.0, -0.7])
@pytest.mark.parametrize("grid", [GAPS, NO_GAPS], ids=lambda grid: grid.name)
def test_classes_of_one_channel(one_set, ring, grid: SliceGrid, threshold: float):
    outputs = predictions(grid, 1)
    outputs[0] = threshold
    values = one_set(grid, ring(), outputs)
    classes = one_set(grid, ring(), outputs, output="argmax", threshold=threshold)
    np.testing.assert_array_equal(classes, np.where(np.isnan(values), 255, values >= threshold))


@pytest.mark.parametrize("options", [{}, {"precision": "half"}, {"output": "argmax"}])
def test_what_is_judged_is_what_is_written(path: Path, assemble, ring, spool, small_regions_of, options):
    """Each voxel once; of classes the values that they are of."""
    for way in (ring(), spool()):
        judged = np.full((2, *GAPS.extent), -1.0)

        def score(number: int, at, values: np.ndarray, judged: np.ndarray = judged) -> dict[str, np.ndarray] | None:
            assert (judged[(slice(None), *at)] == -1).all()
            judged[(slice(None), *at)] = values
            return {"voxels": np.array(values[0].size), "sum": np.nansum(values, dtype=np.float64)}

        with small_regions_of(100, 300, 10):
            said = assemble(Assembly(path, (GAPS,), 2, **options), way, [predictions(GAPS, 2)], score=score)
        with h5py.File(path) as file:
            written = file["gaps"][...]
        if options.get("output") == "argmax":
            written = np.where(np.isnan(judged[:1]), 255, np.nan_to_num(judged).argmax(0))
            with h5py.File(path) as file:
                np.testing.assert_array_equal(file["gaps"][...], written)
        else:
            np.testing.assert_array_equal(judged, written)
        assert said.counts["gaps"]["voxels"] == np.prod(GAPS.extent)
        np.testing.assert_allclose(said.counts["gaps"]["sum"], np.nansum(judged))


def test_counts_add_up():
    assert totalled([]) == {}
    added = totalled([{"a": np.array([1, 2])}, {"a": np.array([3, 4])}])
    np.testing.assert_array_equal(added["a"], [4, 6])


def test_values_become_classes_as_torch_has_them(one_set, ring):
    outputs = predictions(NO_GAPS, 4)
    values = torch.from_numpy(one_set(NO_GAPS, ring(), outputs))
    np.testing.assert_array_equal(one_set(NO_GAPS, ring(), outputs, output="argmax")[0], values.argmax(0))
