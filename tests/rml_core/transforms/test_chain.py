"""Lists of transforms: what is stored, what is drawn, and where bytes become floats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.seed import generator
from rml_core.transforms import TRANSFORMS
from rml_core.transforms.chain import Chain, as_float
from rml_core.transforms.section import DoesNotFit


def transforms(*pairs):
    return tuple(TRANSFORMS[name].model_validate({name: value}) for name, value in pairs)


def bytes_of(height, width, channels=3):
    return (generator(0, "b").random((height, width, channels)) * 255).astype(np.uint8)


def test_bytes_and_16_bits_become_floats_between_0_and_1_and_floats_stay():
    for dtype, white in (("uint8", 255), ("uint16", 65535)):
        array = np.array([0, 1, white // 2, white], dtype)
        assert as_float(array).dtype == np.float32
        np.testing.assert_array_equal(as_float(array), (array / white).astype(np.float32))
    for dtype in ("float32", "int32", "float64"):
        np.testing.assert_array_equal(as_float(np.array([-3, 700], dtype)), np.float32([-3, 700]))


def test_bytes_stay_bytes_until_the_first_normalize():
    array = bytes_of(8, 6)
    chain = Chain.of(transforms(("resize", [3, 4]), ("normalize", {"mean": 0.5}), ("resize", [6, 8])), (), "", False)
    assert chain.leading == 1
    stored = chain.lead(array)
    assert stored.dtype == np.uint8
    finished = chain.finish(stored, None, {}, training=False)
    small = as_float(transforms(("resize", [3, 4]))[0].apply(array)) - np.float32(0.5)
    np.testing.assert_array_equal(finished, transforms(("resize", [6, 8]))[0].apply(small))


def test_only_what_precedes_the_first_random_transform_is_stored():
    chain = Chain.of(transforms(("resize", [3, 4]), ("random_vertical_flip", 0.5), ("resize", [6, 8])), (), "", False)
    assert chain.leading == 1
    assert [type(step.transform).__name__ for step in chain.remaining(training=False)] == ["Resize"]


def test_a_masks_chain_leaves_values_alone():
    both = transforms(("convert_color", "BGR2RGB"), ("normalize", {"mean": 0.5}), ("resize", [3, 4]))
    chain = Chain.of(both, transforms(("rotate", 10.0)), "target_transforms", True)
    assert [step.path for step in chain.steps] == ["transforms[2]", "target_transforms[0]"]
    assert chain.leading == 2


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.booleans())
def test_shared_transforms_draw_once_for_input_and_target(index, mask):
    shared = transforms(("random_horizontal_flip", 0.5), ("normalize", {}), ("random_vertical_flip", 0.5))
    inputs = Chain.of(shared, (), "input_transforms", False)
    targets = Chain.of(shared, transforms(("random_vertical_flip", 1.0)), "target_transforms", mask)
    array, rng, draws = bytes_of(5, 4, 1), generator(0, "transform", 1, index), {}
    one = inputs.finish(array, rng, draws, training=True)
    other = targets.finish(array, rng, draws, training=True)
    np.testing.assert_array_equal(as_float(other)[::-1], one)


def test_evaluation_draws_nothing():
    chain = Chain.of(transforms(("random_horizontal_flip", 1.0)), (), "", False)
    array = bytes_of(5, 4)
    np.testing.assert_array_equal(chain.finish(array, None, {}, training=False), array)


def test_what_does_not_fit_says_where_it_stands():
    chain = Chain.of(transforms(("resize", [3, 4])), transforms(("center_crop", [9, 9])), "input_transforms", False)
    with pytest.raises(DoesNotFit) as error:
        chain.shape((20, 20, 3))
    assert error.value.path == "input_transforms[0].center_crop"
