"""Slices that follow each other are what each is alone, and cost less."""

from __future__ import annotations

import numpy as np
import pytest

from rml_core.data.files import Form, Item
from rml_core.data.neighbours import read_of
from rml_core.data.volumes import opened_volume
from rml_core.slicers import extract
from rml_core.slicers.section import SliceSection

SHAPE = (16, 12, 20)


@pytest.fixture
def volume(tmp_path):
    """Opens (2, 16, 12, 20) as it lies in a file: mapped, in Fortran's order, or in chunks."""
    import h5py

    array = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype(np.float32)

    def opened(kind):
        if kind == "chunks":
            with h5py.File(tmp_path / "v.h5", "w") as file:
                file.create_dataset("v", data=array, chunks=(1, 8, 8, 8))
            return array, opened_volume(Item(str(tmp_path / "v.h5"), "v"), Form("hdf5"), 0)
        np.save(tmp_path / "v.npy", array if kind == "mapped" else np.asfortranarray(array))
        return array, opened_volume(Item(str(tmp_path / "v.npy")), Form("numpy"), 0)

    return opened


@pytest.mark.parametrize("kind", ["mapped", "fortran", "chunks"])
@pytest.mark.parametrize(
    "slicer",
    [
        {"sizes": [16, 12, 1]},
        {"sizes": [1, 12, 20]},
        {"sizes": [8, 1, 9], "padding": [2, 0, 2], "padding_mode": "context"},
        {"sizes": [5, 5, 5], "strides": [3, 3, 3], "padding": 7, "padding_mode": "context"},
        {"sizes": [5, 5, 3], "padding": 1, "padding_mode": "edge"},
    ],
)
def test_each_is_what_it_is_alone(volume, kind, slicer):
    array, opened = volume(kind)
    grid = SliceSection(**slicer).grid(SHAPE, "set")
    for start in range(0, grid.count, 5):
        numbers = np.arange(start, min(start + 5, grid.count))
        read = read_of(opened, grid, numbers)
        for number in numbers.tolist():
            one, other = (np.empty((2, *grid.sample_shape)) for _ in range(2))
            extract.cut(read, grid, grid.location(number), one)
            extract.cut(lambda box: array[(slice(None), *box)], grid, grid.location(number), other)
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("kind", "sizes", "saved"),
    [
        # Planes across chunks of 8 a side; neighbours in a run of memory; each a run of its own.
        ("chunks", [1, 12, 20], 8),
        ("chunks", [16, 12, 1], 8),
        ("chunks", [8, 8, 8], 1),
        ("mapped", [16, 12, 1], 8),
        ("mapped", [1, 12, 20], 1),
    ],
)
def test_what_is_shared_is_read_once(volume, kind, sizes, saved):
    _, opened = volume(kind)
    grid = SliceSection(sizes=sizes).grid(SHAPE, "set")
    numbers = np.arange(min(8, grid.count))
    taken = []
    for readers in ([read_of(opened, grid, numbers)] * len(numbers), [opened.read] * len(numbers)):
        before = opened.bytes_read
        for number, read in zip(numbers.tolist(), readers, strict=True):
            read(grid.location(number).box)
        taken.append(opened.bytes_read - before)
    assert taken[1] == pytest.approx(taken[0] * saved)


def test_nothing_is_read_before_it_is_asked_for_nor_what_is_too_much(volume):
    _, opened = volume("chunks")
    grid = SliceSection(sizes=[1, 12, 20]).grid(SHAPE, "set")
    numbers = np.arange(8)
    assert read_of(opened, grid, numbers) != opened.read
    assert opened.bytes_read == 0
    for apart in ([0], [0, 2], [1, 0]):
        assert read_of(opened, grid, np.array(apart)) == opened.read
    assert read_of(opened, grid, numbers, 8 * 12 * 20 * 2 * 4) != opened.read
    assert read_of(opened, grid, numbers, 8 * 12 * 20 * 2 * 4 - 1) == opened.read
