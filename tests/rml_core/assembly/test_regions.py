"""Regions: each voxel in one, each finished once, no sooner than the last slice that has a voxel of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.assembly.regions import MOST, SINGLE, USUAL, Regions
from rml_core.slicers.grid import Axis, SliceGrid


@st.composite
def grids(draw):
    axes = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 12), min_size=axes, max_size=axes))
    discard = draw(st.booleans())
    return SliceGrid(
        "set",
        tuple(
            Axis(length, draw(st.integers(1, min(length, 5))), draw(st.integers(1, 7)), 0, 0, discard)
            for length in lengths
        ),
    )


@settings(deadline=None, max_examples=150)
@given(grids(), st.integers(1, 3), st.integers(4, 500), st.integers(4, 2000), st.integers(1, 600))
def test_layer_by_layer_all_are_finished(small_regions_of, grid, channels, usual, most, easy):
    with small_regions_of(usual, most, easy):
        regions = Regions(grid, channels)
        seen, missing = np.zeros(grid.extent, int), np.zeros(grid.extent, int)
        for number in range(grid.count):
            missing[grid.location(number).box] += 1
        readers = dict.fromkeys(range(regions.layers), 0)
        for layer in range(regions.layers):
            for position in range(layer * regions.slices_a_layer, (layer + 1) * regions.slices_a_layer):
                number = int(grid.in_order(position, regions.axis))
                assert regions.within_layer(grid.place(number)) < regions.slices_a_layer
                missing[grid.location(number).box] -= 1
            for index in regions.finished(layer):
                box = regions.box(index)
                seen[box] += 1
                assert not missing[box].any()
                positions = {int(grid.in_order(at, regions.axis)): at for at in range(grid.count)}
                own = [grid.number(place) for place in regions.slices(index)]
                assert [positions[number] for number in own] == sorted(positions[number] for number in own)
                assert set(own) == {
                    number
                    for number in range(grid.count)
                    if all(
                        max(a.start, b.start) < min(a.stop, b.stop)
                        for a, b in zip(grid.location(number).box, box, strict=True)
                    )
                }
                for needed in regions.layers_of(index):
                    readers[needed] += 1
                assert np.prod([part.stop - part.start for part in box]) * channels <= regions.largest
        assert (seen == 1).all()
        assert readers == {layer: regions.readers(layer) for layer in readers}
        for number in range(0, grid.count, 3):
            box = grid.location(number).box
            touched = np.zeros(grid.extent, bool)
            for index in regions.touched(box):
                touched[regions.box(index)] = True
            assert touched[box].all()


def test_nothing_grows_with_the_volume():
    """A tera of voxels in a million slices: tiles of a bounded size, in no time."""
    grid = SliceGrid("far", (Axis(10**4, 128, 64),) * 3)
    regions = Regions(grid, 4)
    assert regions.largest * SINGLE <= 2 * MOST
    assert len(list(regions.touched(grid.at((5, 5, 5)).box))) <= 27
    assert regions.layers_of((0, 0, 0)) == range(1)


def test_usual_volumes():
    """Rows of a cube of 512, whose layers overlap by half; planes; columns, whose runs are as long as they may be."""
    cube = Regions(SliceGrid("cube", (Axis(512, 64, 32),) * 3), 1)
    assert (cube.axis, cube.tile) == (0, (16, 512, 512))
    assert cube.largest * SINGLE == USUAL
    planes = Regions(SliceGrid("planes", (Axis(512, 1, 1), Axis(512, 512, 512), Axis(512, 512, 512))), 1)
    assert (planes.axis, planes.tile) == (0, (16, 512, 512))
    columns = Regions(SliceGrid("columns", (Axis(512, 512, 512), Axis(512, 512, 512), Axis(512, 1, 1))), 1)
    assert (columns.axis, columns.tile) == (2, (512, 512, 64))
