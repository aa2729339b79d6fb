"""Sections through volumes: which ones, how little is read of them, and what they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import cross_sections
from flows.cross_sections import Cut, Meaning, cuts, plane, predicted, sections_of_set
from rml_core.slicers.grid import Axis, Box, SliceGrid

RANDOM = np.random.default_rng(0)
CHANNELS = (slice(None),)


class Array:
    """A volume in memory that notes what is read of it."""

    def __init__(self, array: np.ndarray, chunks: tuple[int, ...] | None = None):
        self.array, self.chunks, self.shape = array, chunks, array.shape
        self.read_bytes: list[int] = []

    def read(self, box: Box) -> np.ndarray:
        found = self.array[(*CHANNELS, *box)]
        self.read_bytes.append(found.nbytes)
        return found


def grid(*axes: tuple[int, ...], discard: bool = False) -> SliceGrid:
    """(length, size, stride) an axis."""
    made = [Axis(*each, discard_remainders=discard) for each in axes]
    return SliceGrid("set", tuple(made))


@pytest.mark.parametrize(
    ("slices", "places"),
    [
        (grid((10, 4, 4), (20, 4, 4), (31, 4, 4)), ["[5, :, :]", "[:, 10, :]", "[:, :, 15]"]),
        # What is discarded is not covered: the middle is that of the rest.
        (grid((10, 4, 4), (20, 6, 6), (31, 30, 1), discard=True), ["[4, :, :]", "[:, 9, :]", "[:, :, 15]"]),
        # In gaps there is nothing to be seen: through the slice nearest to the middle.
        (grid((100, 1, 30), (64, 8, 8), (64, 8, 8)), ["[60, :, :]", "[:, 32, :]", "[:, :, 32]"]),
        (grid((100, 1, 45), (64, 8, 8), (64, 8, 8)), ["[45, :, :]", "[:, 32, :]", "[:, :, 32]"]),
        (grid((100, 10, 90), (64, 8, 8), (64, 8, 8)), ["[90, :, :]", "[:, 32, :]", "[:, :, 32]"]),
        # A flat volume is an image.
        (grid((1, 1, 1), (64, 8, 8), (64, 8, 8)), ["[0, :, :]"]),
        (grid((1, 1, 1), (1, 1, 1), (64, 8, 8)), ["[0, :, :]"]),
        (grid((64, 8, 8), (64, 8, 8)), ["[:, :]"]),
        (grid((64, 8, 8)), ["[:]"]),
    ],
)
def test_sections_go_through_the_middle_of_what_is_covered(slices: SliceGrid, places: list[str]):
    assert [cut.place for cut in cuts(slices)] == places


@given(
    lengths=st.lists(st.integers(1, 40), min_size=3, max_size=3),
    chunk=st.none() | st.lists(st.integers(1, 17), min_size=3, max_size=3),
    screen=st.integers(1, 45),
    part=st.sampled_from([1, 500, 10**6]),
    axis=st.integers(0, 2),
    data=st.data(),
)
def test_a_plane_is_every_nth_voxel_however_it_is_read(
    lengths: list[int], chunk: list[int] | None, screen: int, part: int, axis: int, data: st.DataObject
):
    extent = tuple(data.draw(st.integers(1, length)) for length in lengths)
    index = data.draw(st.integers(0, extent[axis] - 1))
    array = RANDOM.random((2, *lengths))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_sections, "SCREEN", screen)
        patch.setattr(cross_sections, "PART_BYTES", part)
        found, steps = plane(Array(array, None if chunk is None else (2, *chunk)), Cut(axis, index, 3), extent)
    shown = [size for number, size in enumerate(extent) if number != axis]
    assert steps == tuple(-(-size // screen) for size in shown)
    whole = array[(*CHANNELS, *map(slice, extent))].take(index, axis=axis + 1)
    assert np.array_equal(found, whole[:, :: steps[0], :: steps[1]])
    assert max(found.shape[1:]) <= screen


@pytest.mark.parametrize("bound", ["by itself", "by the memory"])
def test_a_chunked_plane_is_never_held_whole(bound: str, monkeypatch: pytest.MonkeyPatch):
    if bound == "by itself":
        monkeypatch.setattr(cross_sections, "PART_BYTES", 1 << 16)
    else:
        monkeypatch.setenv("RML_MEMORY", "1MiB")
    volume = Array(np.zeros((1, 4, 1024, 1024), np.float32), (1, 4, 64, 64))
    found, _ = plane(volume, Cut(0, 2, 3), (4, 1024, 1024))
    assert found.shape == (1, 342, 342)
    assert max(volume.read_bytes) <= 1 << 16
    assert len(volume.read_bytes) == 16 * (8 if bound == "by itself" else 4)


def test_volumes_are_opened_with_what_a_run_may_hold_and_closed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Closing(Array):
        closed = False

        def close(self) -> None:
            self.closed = True

    class Test:
        grids, target, opened = (grid((4, 2, 2), (4, 2, 2)),), True, dict[str, tuple[Closing, int]]()

        def volume(self, side: str, cache_bytes: int) -> Closing:
            self.opened[side] = Closing(np.zeros((1, 4, 4), np.float32)), cache_bytes
            return self.opened[side][0]

    with h5py.File(tmp_path / "prediction.h5", "w") as file:
        file["set"] = np.zeros((1, 4, 4), np.float32)
    test: Any = Test()
    for limit, kept in (("1MiB", 1 << 17), ("1TB", cross_sections.CACHE_BYTES)):
        monkeypatch.setenv("RML_MEMORY", limit)
        assert len(list(cross_sections.sections_of(tmp_path / "prediction.h5", test, Meaning()))) == 1
        assert [(volume.closed, bytes_) for volume, bytes_ in test.opened.values()] == [(True, kept)] * 2


def test_what_a_prediction_shows():
    values = np.array([[[0.2, 0.6, np.nan]], [[0.7, 0.5, np.nan]]], np.float16)
    assert predicted(values, Meaning()).tolist()[0][:2] == pytest.approx([0.2, 0.6], abs=1e-3)
    np.testing.assert_array_equal(predicted(values, Meaning(2)), [[1, 0, np.nan]])
    np.testing.assert_array_equal(predicted(values[:1], Meaning(2)), [[0, 1, np.nan]])
    np.testing.assert_array_equal(predicted(values[:1] - 0.4, Meaning(2, half=0)), [[0, 1, np.nan]])
    np.testing.assert_array_equal(predicted(np.array([[[3, 0, 255]]], np.uint8), Meaning(4)), [[3, 0, np.nan]])


def test_the_error_of_values_is_the_difference_and_that_of_classes_where_they_differ():
    slices = grid((4, 2, 2), (4, 2, 2))
    inputs, targets, found = RANDOM.random((3, 1, 4, 4)).astype(np.float32)
    found[0, 1, 1] = np.nan
    (section,) = sections_of_set(slices, Array(inputs), Array(targets), Array(found), Meaning()).sections
    np.testing.assert_array_equal(section.input, inputs[0])
    np.testing.assert_array_equal(section.error, found[0] - targets[0])

    masks = np.array([[[0, 7, 7, 9], [0, 7, 7, 9], [0, 0, 7, 7], [7, 7, 7, 7]]], np.uint8)
    scores = RANDOM.random((2, 4, 4)).astype(np.float32)
    scores[:, 2, 2] = np.nan
    meaning = Meaning(2, mapped=(0, 7), ignore_index=9)
    (section,) = sections_of_set(slices, Array(inputs), Array(masks), Array(scores), meaning).sections
    classes = np.where(masks[0] == 9, np.nan, masks[0] / 7)
    assert section.target is not None
    assert section.error is not None
    np.testing.assert_array_equal(section.target, classes)
    counts = ~np.isnan(classes) & ~np.isnan(scores[0])
    np.testing.assert_array_equal(np.isnan(section.error), ~counts)
    np.testing.assert_array_equal(section.error[counts], (scores.argmax(0) != classes)[counts])


def test_without_targets_there_is_no_error_and_channels_are_said():
    slices = grid((4, 2, 2), (4, 2, 2))
    arrays = RANDOM.random((3, 4, 4)), RANDOM.random((2, 4, 4))
    found = sections_of_set(slices, Array(arrays[0]), None, Array(arrays[1]), Meaning())
    assert (found.sections[0].target, found.sections[0].error) == (None, None)
    assert found.channels == {"input": "channel 0 of 3", "prediction": "channel 0 of 2"}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_assembled_files_are_read_where_their_numbers_lie(tmp_path: Path, in_memory: Any, dtype: type[np.generic]):
    from upath import UPath

    array = RANDOM.integers(0, 200, (2, 5, 6, 7)).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["first"] = array[:1]
        file["second"] = array
    in_memory.put_file(str(tmp_path / "a.h5"), "/a.h5")
    for path in (tmp_path / "a.h5", UPath("memory:///a.h5")):
        with cross_sections._Dataset(path, "second") as dataset:
            assert dataset.shape == array.shape
            np.testing.assert_array_equal(plane(dataset, Cut(1, 3, 3), (5, 6, 7))[0], array[:, :, 3])


@pytest.fixture
def checked(tmp_path: Path) -> Callable[..., Any]:
    """A run file that assembles, checked."""
    from rml_core.check import check
    from rml_core.run import read

    def made(activation: str, **data: Any) -> Any:
        np.save(tmp_path / "volume.npy", np.zeros((6, 6, 6), np.float32))
        np.save(tmp_path / "mask.npy", np.zeros((6, 6, 6), np.uint8))
        conv = {"filters": data.pop("filters", 2), "kernel_size": 1, "activation": activation}
        section: dict[str, Any] = {
            "layers": [{"class_name": "Conv3D", "config": conv}],
            "data": {
                "type" if "test_target_path" in data else "input_type": "numpy",
                "test_input_path": "volume.npy",
                "slicers": [{"sizes": [3, 3, 3]}],
                "hdf5_outfile": "prediction.h5",
                **data,
            },
        }
        if "test_target_path" in data:
            section["loss"] = {"function": "BCE"} if conv["filters"] == 1 else {"function": "Dice"}
        return check(read({"neural_network": section}, tmp_path))

    return made


@pytest.mark.parametrize(
    ("activation", "data", "meaning"),
    [
        ("linear", {}, Meaning()),
        ("softmax", {}, Meaning(2)),
        ("softmax", {"filters": 1}, Meaning()),
        ("linear", {"hdf5_output": "argmax", "filters": 3}, Meaning(3)),
        ("softmax", {"test_target_path": "mask.npy", "target_is_mask": True}, Meaning(2, mapped=(0, 5))),
        ("linear", {"test_target_path": "mask.npy", "target_is_mask": True, "filters": 1}, Meaning(2, 0.0, (0, 5))),
        ("sigmoid", {"test_target_path": "mask.npy", "filters": 1}, Meaning()),
    ],
)
def test_what_the_numbers_of_a_run_mean(
    checked: Callable[..., Any], activation: str, data: dict[str, Any], meaning: Meaning
):
    assert Meaning.of(checked(activation, **data), meaning.mapped) == meaning
    assert meaning.names == (("value 0", "value 5") if meaning.mapped else ())
