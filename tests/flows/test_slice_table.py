"""The figures of slice sets, against slices that are counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.slice_table import left_out, padded
from rml_core.slicers.grid import Axis, SliceGrid


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    length, stride = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    discard = draw(st.booleans())
    size = draw(st.integers(1, length if discard else length + 3))
    return Axis(length, size, stride, draw(st.integers(0, 2)), draw(st.integers(0, 2)), discard)


@given(st.lists(axes(), min_size=1, max_size=3))
def test_fractions_of_padding_and_of_gaps_are_those_of_all_slices(made: list[Axis]):
    grid = SliceGrid("set", tuple(made))
    seen = np.zeros(grid.lengths, bool)
    own = whole = 0
    for number in range(grid.count):
        location = grid.location(number)
        seen[location.box] = True
        own += seen[location.box].size
        whole += int(np.prod([axis.padded for axis in made]))
    covered = seen[tuple(map(slice, grid.extent))]
    assert padded(grid) == pytest.approx(1 - own / whole)
    assert left_out(grid) == pytest.approx(1 - covered.mean())


def test_a_thousand_million_slices_take_no_time():
    grid = SliceGrid("set", (Axis(1000, 1, 1),) * 3)
    assert (grid.count, padded(grid), left_out(grid)) == (10**9, 0, 0)
