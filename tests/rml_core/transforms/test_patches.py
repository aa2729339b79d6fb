"""Inpainting: what is black in the input is all that the target shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.problem import Refused
from rml_core.config.section import parse
from rml_core.config.seed import generator
from rml_core.transforms.patches import RandomPatches
from rml_core.transforms.section import DoesNotFit


def patches(number=3, size=4):
    return RandomPatches.model_validate({"random_patches": {"number": number, "size": size}})


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 20),
    st.data(),
    st.sampled_from(["uint8", "int64", "float32"]),
)
def test_input_and_target_share_the_sample_out(height, width, number, data, dtype):
    size = data.draw(st.integers(1, min(height, width)))
    array = generator(0, "a", height, width).integers(1, 200, (height, width, 3)).astype(dtype)
    transform = patches(number, size)
    draw = transform.draw(generator(0, "draw", height, width, number), array.shape)
    inputs, targets = transform.apply(array, draw), transform.on_targets().apply(array, draw)
    covered = np.zeros((height, width), bool)
    for row, column in draw:
        assert 0 <= row <= height - size
        assert 0 <= column <= width - size
        covered[row : row + size, column : column + size] = True
    np.testing.assert_array_equal(inputs, np.where(covered[:, :, None], 0, array))
    np.testing.assert_array_equal(targets, np.where(covered[:, :, None], array, 0))
    assert inputs.dtype == targets.dtype == array.dtype


def test_values_that_are_not_numbers_are_blacked_out_too():
    array = np.full((4, 4, 1), np.nan, np.float32)
    np.testing.assert_array_equal(patches(1, 4).apply(array, np.array([[0, 0]])), 0)


def test_a_patch_larger_than_the_sample():
    for shape in ((5, 3, 1), (3, None, 1)):
        with pytest.raises(DoesNotFit) as error:
            patches(1, 4).shape(shape)
        width = "?" if shape[1] is None else shape[1]
        assert str(error.value) == f"patches of 4 x 4 are larger than a sample of {width} x {shape[0]} (width x height)"
        assert error.value.remedy == "take smaller patches, or `resize` before them"
    assert patches(1, 4).shape((None, 4, 3)) == (None, 4, 3)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"number": 3}, "p.random_patches.size: is missing"),
        ({"number": 0, "size": 4}, "p.random_patches.number: 0 does not fit\n    allowed: greater than or equal to 1"),
        ({"number": 3, "size": 2.5}, "p.random_patches.size: 2.5 does not fit\n    allowed: an integer"),
        (
            {"number": 3, "sise": 2, "size": 2},
            'p.random_patches.sise: unknown key\n    allowed: number, size\n    did you mean "size"?',
        ),
        (4, "p.random_patches: 4 does not fit\n    allowed: an object"),
    ],
)
def test_what_is_refused(given, text):
    with pytest.raises(Refused) as refused:
        parse(RandomPatches, {"random_patches": given}, "p")
    assert str(refused.value) == text
