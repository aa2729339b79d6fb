"""Slices that are views of one box are what each would be if it were cut alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rml_core.data import slice_lines
from rml_core.data.files import held_shape
from rml_core.data.nans import Nans
from rml_core.slicers import extract
from rml_core.slicers.grid import Axis, SliceGrid


def channels_first(held: np.ndarray) -> np.ndarray:
    return held.transpose(2, 0, 1) if held.ndim == 3 else held


@st.composite
def grids(draw: st.DrawFn) -> SliceGrid:
    mode = draw(st.sampled_from(["zeros", "edge", "reflect", "context"]))
    along_size = draw(st.integers(2, 6))
    pads = st.integers(0, 2)
    # Only the neighbours' own voxels are in one box.
    before, after = (draw(pads), draw(pads)) if mode == "context" else (0, 0)
    last = Axis(draw(st.integers(along_size, 20)), along_size, draw(st.integers(1, along_size - 1)), before, after)
    size = draw(st.integers(1, 4))
    pad = draw(pads) if size > 1 else 0
    first = Axis(draw(st.integers(size, 9)), size, draw(st.integers(1, 5)), pad, pad)
    third = draw(st.sampled_from([(), (Axis(5, 3, 2, 1, 0),)]))
    return SliceGrid("set", (*third, first, last), padding_mode=mode)


@settings(max_examples=60, deadline=None)
@given(grids(), st.integers(1, 2), st.data())
def test_views_of_a_box_are_its_slices(grid: SliceGrid, channels: int, data: st.DataObject) -> None:
    along = grid.counts[-1]
    assume(along > 1)
    start = data.draw(st.integers(0, along - 2))
    stop = data.draw(st.integers(start + 2, along))
    line = data.draw(st.integers(0, grid.count // along - 1))
    numbers = line * along + np.arange(start, stop)
    assume(slice_lines.is_line(grid, numbers))
    array = np.random.default_rng(0).standard_normal((channels, *grid.lengths))

    wide, place = slice_lines.box_of(grid, numbers)
    box = np.empty(held_shape((channels, *wide.sample_shape)))
    samples = slice_lines.views(box, grid.axes[-1], len(numbers))
    under = slice_lines.box_under(samples, grid.axes[-1])
    assert under.shape == box.shape
    extract.cut(lambda part: array[(slice(None), *part)], wide, place, channels_first(under))

    for number, sample in zip(numbers.tolist(), samples, strict=True):
        alone = np.empty((channels, *grid.sample_shape))
        extract.cut(lambda part: array[(slice(None), *part)], grid, grid.location(number), alone)
        np.testing.assert_array_equal(channels_first(sample), alone)


LINE = SliceGrid("set", (Axis(4, 2, 1), Axis(9, 4, 2)))


@pytest.mark.parametrize(
    ("grid", "numbers"),
    [
        (LINE, [0]),
        (LINE, [0, 2]),
        (LINE, [3, 4]),
        (LINE, [1, 0]),
        (SliceGrid("set", (Axis(4, 2, 1), Axis(9, 4, 4))), [0, 1]),
        (SliceGrid("set", (Axis(4, 2, 1), Axis(9, 4, 2, 1, 1))), [0, 1]),
        (SliceGrid("set", (Axis(4, 2, 1), Axis(9, 4, 2)), transpose=True), [0, 1]),
        (SliceGrid("set", (Axis(4, 2, 1), Axis(9, 4, 2)), padding_mode="reflect"), [0, 1]),
    ],
    ids=["one", "gap", "two lines", "backwards", "no overlap", "padding", "transposed", "reflected"],
)
def test_what_is_no_line(grid: SliceGrid, numbers: list[int]) -> None:
    assert not slice_lines.is_line(grid, np.array(numbers))


def test_a_whole_line_comes_in_ascending_order_and_a_part_as_it_is() -> None:
    numbers = LINE.in_order(np.arange(8), 0)
    assert numbers.tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert slice_lines.ascending(LINE, numbers[:4]).tolist() == [0, 1, 2, 3]
    assert slice_lines.ascending(LINE, numbers[:3]).tolist() == [0, 2, 1]
    assert slice_lines.ascending(LINE, numbers[2:6]).tolist() == [1, 3, 4, 6]


@settings(max_examples=40, deadline=None)
@given(grids(), st.integers(0, 2**32 - 1))
def test_nans_of_lines_are_counted_once_a_voxel(grid: SliceGrid, seed: int) -> None:
    along = grid.counts[-1]
    numbers = np.arange(grid.count).reshape(-1, along)
    assume(along > 1 and slice_lines.is_line(grid, numbers[0]))
    array = np.random.default_rng(seed).choice([0.0, np.nan], (1, *grid.lengths), p=[0.9, 0.1])

    def read(part: tuple[slice, ...]) -> np.ndarray:
        return array[(slice(None), *part)]

    nans = Nans([grid], "volume")
    nans.begin(whole=True)
    for line in numbers:
        wide, place = slice_lines.box_of(grid, line)
        box = np.empty((1, *wide.sample_shape))
        extract.cut(read, wide, place, box)
        nans.look_along(extract.lying(box, wide), grid, [grid.location(number) for number in line.tolist()], read)
    said = nans.end()

    covered = np.ix_(*([len(axis.covering(at)) > 0 for at in range(axis.length)] for axis in grid.axes))
    count = int(np.isnan(array[0][covered]).sum())
    assert said == ([f"volume has {count} nan {'value' if count == 1 else 'values'}"] if count else [])
