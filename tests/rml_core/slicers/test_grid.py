"""Where slices lie, against slices that are laid out one after the other and voxels that are counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.slicers.grid import Axis, SliceGrid

EACH = settings(max_examples=150, deadline=None)


@st.composite
def axes(draw: st.DrawFn, longest: int = 40) -> Axis:
    """One with a slice at least."""
    size, discard = draw(st.integers(1, longest)), draw(st.booleans())
    length = draw(st.integers(size if discard else 1, longest))
    pads = draw(st.tuples(st.integers(0, 5), st.integers(0, 5))) if size > 1 else (0, 0)
    return Axis(length, size, draw(st.integers(1, longest)), *pads, discard)


@st.composite
def grids(draw: st.DrawFn) -> SliceGrid:
    several = tuple(draw(st.lists(axes(longest=9), min_size=1, max_size=3)))
    flat = sum(axis.size > 1 for axis in several)
    return SliceGrid("set", several, draw(st.booleans()) and flat == 2)


def laid_out(axis: Axis) -> list[range]:
    """The voxels of each slice, fill included: one after the other, until nothing is left that one could take."""
    found: list[range] = []
    while True:
        start = len(found) * axis.stride
        there = range(start, start + axis.size)
        if axis.discard_remainders:
            if there.stop > axis.length:
                return found
        elif start >= axis.length or (found and found[-1].stop >= axis.length):
            return found
        found.append(there)


def times_covered(axis: Axis) -> np.ndarray:
    covered = np.zeros(axis.length, int)
    for voxels in laid_out(axis):
        covered[voxels.start : voxels.stop] += 1
    return covered


@given(axis=axes())
@EACH
def test_slices_are_those_that_are_laid_out(axis: Axis):
    expected = laid_out(axis)
    assert axis.count == len(expected)
    for place, voxels in enumerate(expected):
        assert (axis.start(place), axis.stop(place)) == (voxels.start, min(voxels.stop, axis.length))
    filled = any(voxels.stop > axis.length for voxels in expected)
    grid = SliceGrid("set", (axis,))
    assert grid.fills == (filled or axis.before > 0 or axis.after > 0)
    assert axis.padded == axis.before + axis.size + axis.after


@given(axis=axes())
@EACH
def test_what_is_covered_and_what_is_not(axis: Axis):
    covered = times_covered(axis)
    reached = np.flatnonzero(covered)[-1] + 1
    assert axis.extent == (reached if axis.discard_remainders else axis.length)
    within = covered[: axis.extent]
    assert axis.overlaps == bool((covered > 1).any())
    assert SliceGrid("set", (axis,)).gaps == bool((within == 0).any())
    if axis.stride <= axis.size:
        assert within.all()
        if axis.discard_remainders:
            assert axis.length - axis.extent < axis.stride
        else:
            assert axis.extent == axis.length
    for voxel in range(axis.extent):
        expected = [place for place, voxels in enumerate(laid_out(axis)) if voxel in voxels]
        assert list(axis.covering(voxel)) == expected


@given(grid=grids())
@EACH
def test_boxes_of_the_slices_in_c_order(grid: SliceGrid):
    covered = np.zeros(grid.lengths, int)
    places = list(np.ndindex(*(len(laid_out(axis)) for axis in grid.axes)))
    assert grid.count == len(places)
    for number, place in enumerate(places):
        location = grid.location(number)
        assert (grid.place(number), grid.number(place), location.place) == (place, number, place)
        covered[location.box] += 1
        assert location.shape == covered[location.box].shape
        assert location == grid.at(place)
    expected = np.ones(grid.lengths, int)
    for number, axis in enumerate(grid.axes):
        expected *= times_covered(axis).reshape([-1 if other == number else 1 for other in range(len(grid.axes))])
    np.testing.assert_array_equal(covered, expected)
    within = covered[tuple(map(slice, grid.extent))]
    assert not covered.sum() - within.sum()
    assert grid.gaps == bool((within == 0).any())
    assert grid.overlaps == bool((covered > 1).any())
    for number in (-1, grid.count):
        with pytest.raises(IndexError, match=f"slice {number} of {grid.count}"):
            grid.location(number)


@given(grid=grids())
@EACH
def test_the_shape_of_a_sample(grid: SliceGrid):
    cut = np.pad(np.zeros([axis.size for axis in grid.axes]), [(axis.before, axis.after) for axis in grid.axes])
    sample = cut.squeeze(axis=tuple(number for number, axis in enumerate(grid.axes) if axis.size == 1))
    assert grid.sample_shape == (sample.T.shape if grid.transpose else sample.shape)


def grid_of(lengths: tuple[int, ...], sizes: tuple[int, ...], strides: tuple[int, ...], discard: bool) -> SliceGrid:
    each = zip(lengths, sizes, strides, strict=True)
    return SliceGrid("set", tuple(Axis(*of, discard_remainders=discard) for of in each))


@pytest.mark.parametrize(
    ("lengths", "counts", "extent"),
    [((704, 590, 1006), (11, 9, 45), (704, 576, 1004)), ((78, 590, 1006), (1, 9, 45), (64, 576, 1004))],
)
def test_the_known_answers(lengths: tuple[int, ...], counts: tuple[int, ...], extent: tuple[int, ...]):
    grid = grid_of(lengths, (64, 64, 256), (64, 64, 17), discard=True)
    assert (grid.counts, grid.extent) == (counts, extent)
    assert grid.count == {704: 4455, 78: 405}[lengths[0]]


def test_a_remainder_is_left_out_or_filled_up():
    assert Axis(10, 4, 4, discard_remainders=True).count == 2
    assert Axis(10, 4, 4).count == 3
    # The second one would have nothing that the first one does not have.
    assert Axis(4, 4, 2).count == 1
    # A gap follows, and then the array is at its end.
    assert Axis(5, 4, 6).count == 1
    assert Axis(3, 4, 4, discard_remainders=True).count == 0
    assert Axis(3, 4, 4).count == 1


def test_a_thousand_million_million_slices_are_numbers_alone():
    grid = grid_of((10**6,) * 3, (64,) * 3, (10,) * 3, discard=False)
    assert grid.count == (-(-(10**6 - 64) // 10) + 1) ** 3
    last = grid.location(grid.count - 1)
    assert [(part.start, part.stop) for part in last.box] == [(999940, 10**6)] * 3
    assert grid.number(last.place) == grid.count - 1
    assert math.prod(grid.extent) == 10**18
