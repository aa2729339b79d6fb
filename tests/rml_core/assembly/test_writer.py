"""Slices to one file: bit by bit what was predicted, whoever adds and writes, and in whatever order."""

from __future__ import annotations

import random
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.assembly.layout import Assembly
from rml_core.assembly.writer import Assembler
from rml_core.slicers.grid import Axis, SliceGrid
from rml_core.slicers.section import SliceSection


@st.composite
def slicings(draw):
    """(the section of a slicer, the shape of an array (C, *space)): whatever the strides, paddings, remainders."""
    axes = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 11), min_size=axes, max_size=axes))
    sizes = [draw(st.integers(1, min(5, length))) for length in lengths]
    slicer = {"sizes": sizes, "strides": [draw(st.integers(1, size + 2)) for size in sizes]}
    if draw(st.booleans()):
        slicer["padded_sizes"] = [size if size == 1 else size + draw(st.integers(0, 3)) for size in sizes]
    slicer["transpose"] = sum(size > 1 for size in sizes) == 2 and draw(st.booleans())
    slicer["discard_remainders"] = draw(st.booleans())
    return slicer, (draw(st.integers(1, 2)), *lengths)


SIZES = st.tuples(st.integers(4, 2000), st.integers(64, 4000), st.integers(1, 2000))


def gaps_of(grid: SliceGrid) -> np.ndarray:
    """Where no slice is, by the slices' own boxes."""
    gaps = np.ones(grid.extent, bool)
    for number in range(grid.count):
        gaps[grid.location(number).box] = False
    return gaps


@settings(deadline=None, max_examples=60)
@given(slicings(), SIZES, st.integers(1, 3), st.integers(1, 7), st.sampled_from(["mean", "gaussian"]))
def test_what_is_cut_comes_back(cut_by_numpy, one_set, ring, small_regions_of, slicing, sizes, stripes, batch, blend):
    slicer, shape = slicing
    array = np.random.default_rng(0).standard_normal(shape, np.float32)
    grid, cut = SliceSection(**slicer).grid(shape[1:], "set"), cut_by_numpy(array, slicer)
    outputs = np.stack([cut(number)[0] for number in range(grid.count)])
    with small_regions_of(*sizes):
        found = one_set(grid, ring(stripes), outputs, batch, blend=blend)
    expected = array[(slice(None), *[slice(0, reach) for reach in grid.extent])].copy()
    expected[:, gaps_of(grid)] = np.nan
    if grid.overlaps:
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    else:
        assert found.tobytes() == expected.tobytes()


@settings(deadline=None, max_examples=60)
@given(slicings(), SIZES, st.sampled_from(["mean", "gaussian"]), st.data())
def test_sums_are_the_same_bits_whoever_makes_them(
    cut_by_numpy, one_set, ring, spool, small_regions_of, slicing, sizes, blend, data
):
    """Against weighted means in double precision; and one stripe against some, with too little memory, and against
    workers that take their tasks in any order."""
    slicer, shape = slicing
    grid, cut = SliceSection(**slicer).grid(shape[1:], "set"), cut_by_numpy(np.zeros(shape), slicer)
    outputs = np.random.default_rng(1).standard_normal((grid.count, shape[0], *grid.sample_shape), np.float32)
    with small_regions_of(*sizes):
        found = one_set(grid, ring(1), outputs, 1, blend=blend)
        some = ring(data.draw(st.integers(2, 4)), memory=data.draw(st.integers(1, 5000)))
        again = one_set(grid, some, outputs, data.draw(st.integers(1, 9)), blend=blend)
        order = random.Random(data.draw(st.integers(0, 99)))
        tasks = spool(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5000)), order=order.randrange)
        spooled = one_set(grid, tasks, outputs, data.draw(st.integers(1, 9)), blend=blend)
    assert found.tobytes() == again.tobytes() == spooled.tobytes()

    sums, weights = np.zeros((shape[0], *grid.extent)), np.zeros(grid.extent)
    window = np.ones(())
    for axis in grid.axes:
        offsets = (np.arange(axis.size) - (axis.size - 1) / 2) / (axis.size / 8)
        gauss = np.exp(-(offsets**2) / 2) if blend == "gaussian" and axis.overlaps else np.ones(axis.size)
        window = window[..., None] * gauss
    for number in range(grid.count):
        _, there = cut(number)
        box = cut.box(number)
        size = tuple(part.stop - part.start for part in box)
        # Voxels that are there, in C order of the array's own axes.
        own = outputs[number] if not grid.transpose else outputs[number].swapaxes(1, 2)
        core = own[:, there.T if grid.transpose else there].reshape(shape[0], *size)
        weight = window[tuple(slice(0, length) for length in size)]
        sums[(slice(None), *box)] += core * weight
        weights[box] += weight
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found, sums / weights, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_outputs_of_any_precision(bricks: SliceGrid, path: Path, ring, dtype: torch.dtype):
    values = torch.randn(bricks.count, 1, 4, 4, 4).to(dtype)
    for name, outputs in (("one", values), ("two", values.float())):
        assembler = Assembler(Assembly(path.with_name(name), (bricks,), 1), ring())
        numbers = bricks.in_order(np.arange(bricks.count), bricks.slab_axis(1))
        assembler.add(numbers, outputs[numbers])
        assembler.finish()
    with h5py.File(path.with_name("one")) as one, h5py.File(path.with_name("two")) as two:
        assert one["bricks"].dtype == np.float32
        assert one["bricks"][...].tobytes() == two["bricks"][...].tobytes()


def test_channels_that_are_last_in_memory(one_set, ring):
    grid = SliceGrid("tiles", (Axis(5, 1, 1), Axis(9, 4, 3), Axis(8, 4, 2)))
    outputs = np.random.default_rng(0).standard_normal((grid.count, 4, 4, 3), np.float32).transpose(0, 3, 1, 2)
    assert np.array_equal(one_set(grid, ring(), outputs), one_set(grid, ring(), outputs.copy()))


def test_slices_that_share_memory(bricks: SliceGrid, path: Path, ring):
    """A whole line in one box, each slice a view of it, in ascending order."""
    line = bricks.counts[-1]
    boxes = np.random.default_rng(0).standard_normal((bricks.count // line, 1, 4, 4, 4 + 3 * (line - 1)), np.float32)
    views = np.lib.stride_tricks.sliding_window_view(boxes, 4, -1)[..., ::3, :]
    views = np.moveaxis(views, -2, 1)
    for name, copied in (("views", False), ("copies", True)):
        assembler = Assembler(Assembly(path.with_name(name), (bricks,), 1), ring())
        for at, view in zip(range(0, bricks.count, line), views, strict=True):
            numbers = np.sort(bricks.in_order(np.arange(at, at + line), 0))
            assembler.add(numbers, torch.as_strided(torch.from_numpy(boxes[at // line]), (line, 1, 4, 4, 4),
                          (3, *torch.from_numpy(boxes[at // line]).stride())) if not copied
                          else torch.from_numpy(view.copy()))  # fmt: skip
        assembler.finish()
    with h5py.File(path.with_name("views")) as one, h5py.File(path.with_name("copies")) as two:
        assert one["bricks"][...].tobytes() == two["bricks"][...].tobytes()


def test_several_sets_in_one_file(path: Path, assemble, ring):
    sets = (
        SliceGrid("xy", (Axis(6, 1, 1), Axis(7, 3, 3), Axis(8, 4, 4))),
        SliceGrid("group/xz", (Axis(6, 3, 2), Axis(7, 1, 1), Axis(8, 4, 4)), transpose=True),
    )
    outputs = [
        np.full((grid.count, 2, *grid.sample_shape), number, np.float32) for number, grid in enumerate(sets, start=1)
    ]
    said = assemble(Assembly(path, sets, 2), ring(), outputs)
    assert (said.nbytes, said.beyond, said.counts) == (2 * 2 * 6 * 7 * 8 * 4, 0, {})
    with h5py.File(path) as file:
        assert (file["xy"][...] == 1).all()
        assert (file["group/xz"][...] == 2).all()
    assert list(path.parent.iterdir()) == [path]


def test_other_slices_than_those_that_are_due(bricks: SliceGrid, path: Path, ring):
    assembler = Assembler(Assembly(path, (bricks,), 1), ring())
    with pytest.raises(ValueError, match=r"^slices \[7\] are not those at 0 to 1$"):
        assembler.add(np.array([7]), torch.zeros(1, 1, 4, 4, 4))
    with pytest.raises(ValueError, match=f"^0 predictions of {bricks.count}$"):
        assembler.finish()
    assembler.discard()
    assert list(path.parent.iterdir()) == []
