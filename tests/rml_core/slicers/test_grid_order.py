"""In which order slices are evaluated and their overlaps are added."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rml_core.slicers.grid import Axis, SliceGrid

SIZES = st.integers(1, 12)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    size = draw(SIZES)
    return Axis(draw(st.integers(size, 40)), size, draw(SIZES), 0, 0, draw(st.booleans()))


@given(axes())
def test_along_a_line_those_that_do_not_overlap_follow_each_other(axis: Axis) -> None:
    places = [axis.in_turns(position) for position in range(axis.count)]
    assert places == sorted(range(axis.count), key=lambda place: (place % axis.apart, place))
    assert axis.apart == axis.count or axis.apart * axis.stride >= axis.size
    assert axis.in_turns(np.arange(axis.count)).tolist() == places


@given(st.tuples(axes(), axes(), axes()), st.integers(0, 2))
def test_each_slice_comes_once_a_layer_after_the_other(three: tuple[Axis, Axis, Axis], slab_axis: int) -> None:
    grid = SliceGrid("set", three)
    numbers = grid.in_order(np.arange(grid.count), slab_axis)
    assert sorted(numbers.tolist()) == list(range(grid.count))
    layers = [grid.place(number)[slab_axis] for number in numbers.tolist()]
    assert layers == sorted(layers)


def test_halfway_overlapping_slices_take_every_second_one_first() -> None:
    grid = SliceGrid("set", (Axis(4, 4, 2), Axis(6, 4, 2), Axis(12, 4, 2)))
    assert [grid.in_order(position, 0) for position in range(10)] == [0, 2, 4, 1, 3, 5, 7, 9, 6, 8]
