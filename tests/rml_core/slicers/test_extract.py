"""Cutting, against NumPy's own padding of the same voxels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.slicers import extract
from rml_core.slicers.section import SliceSection

MODES = ("zeros", "edge", "reflect", "context")
TYPES = ("float32", "float64", "uint8", "int16", "float16", "bool", "int64")


@st.composite
def slicings(draw):
    """(an array (C, *space), a slicer of it) of 1 to 3 axes, whatever the paddings, strides and remainders."""
    axes = draw(st.integers(1, 3))
    lengths = tuple(draw(st.lists(st.integers(1, 9), min_size=axes, max_size=axes)))
    sizes = [draw(st.integers(1, length + 2)) for length in lengths]
    discard = draw(st.booleans())
    if discard:
        sizes = [min(size, length) for size, length in zip(sizes, lengths, strict=True)]
    slicer = {"sizes": sizes, "strides": [draw(st.integers(1, size + 2)) for size in sizes]}
    if draw(st.booleans()):
        slicer["padded_sizes"] = [size if size == 1 else size + draw(st.integers(0, 12)) for size in sizes]
    else:
        slicer["padding"] = [0 if size == 1 else draw(st.integers(0, 12)) for size in sizes]
    slicer["transpose"] = sum(size > 1 for size in sizes) == 2 and draw(st.booleans())
    slicer |= {"discard_remainders": discard, "padding_mode": draw(st.sampled_from(MODES))}
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    array = rng.integers(0, 100, (draw(st.integers(1, 3)), *lengths)).astype(draw(st.sampled_from(TYPES)))
    return array, slicer


@settings(deadline=None, max_examples=200)
@given(slicings(), st.data())
def test_slices_are_what_numpy_cuts_and_pads(cut_by_numpy, slicing, data):
    array, slicer = slicing
    grid, expected = SliceSection(**slicer).grid(array.shape[1:], "set"), cut_by_numpy(array, slicer)
    assert grid.counts == expected.counts
    number = data.draw(st.integers(0, grid.count - 1))
    location = grid.location(number)
    sample, there = expected(number)
    assert sample.shape == (len(array), *grid.sample_shape)
    assert location.box == expected.box(number)
    for held in (sample.shape, (*sample.shape[1:], len(array))):
        # Channels first, and last as pictures are held.
        out = np.full(held, 77, np.float32)
        view = out if held == sample.shape else np.moveaxis(out, -1, 0)
        extract.cut(lambda box: array[(slice(None), *box)], grid, location, view)
        np.testing.assert_array_equal(view, sample.astype(np.float32))
    own = np.zeros(grid.sample_shape, bool)
    own[extract.kept(grid, location)] = True
    np.testing.assert_array_equal(own, there)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_an_axis_is_reflected_again_and_again(length):
    expected = np.pad(np.arange(length), 30, mode="reflect")
    np.testing.assert_array_equal(extract.reflected(np.arange(-30, length + 30), length), expected)


@pytest.mark.parametrize("mode", MODES)
def test_what_lies_as_in_the_array_is_a_view_of_the_sample(mode):
    section = SliceSection(sizes=[4, 1, 3], padding=[2, 0, 1], transpose=True, padding_mode=mode)
    grid = section.grid((9, 5, 7), "set")
    sample = np.arange(2 * 5 * 8).reshape(2, 5, 8)
    lying = extract.lying(sample, grid)
    assert lying.shape == (2, 8, 1, 5)
    assert np.shares_memory(lying, sample)
    np.testing.assert_array_equal(lying[1, :, 0], sample[1].T)


def test_only_what_is_needed_is_read():
    section = SliceSection(sizes=[4, 4], padding=3, padding_mode="context")
    grid = section.grid((16, 16), "set")
    read = []

    def box(box):
        read.append(box)
        return np.zeros((1, 16, 16))[(slice(None), *box)]

    out = np.empty((1, 10, 10))
    for number in (0, 5):
        extract.cut(box, grid, grid.location(number), out)
    assert read == [(slice(0, 7), slice(0, 7)), (slice(1, 11), slice(1, 11))]
