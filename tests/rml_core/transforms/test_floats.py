"""The last step: one pass gives the bits that one step after the other gives."""

from __future__ import annotations

import numpy as np
import pytest

from rml_core.config.seed import generator
from rml_core.transforms.color import Normalize
from rml_core.transforms.floats import Ending, as_float

NORMALIZES = {
    "nothing": [],
    "numbers": [{"mean": 0.485, "std": 0.229}],
    "mean alone": [{"mean": 0.3}],
    "a list": [{"mean": [0.1, 0.2, 0.3], "std": 0.7}],
    "lists": [{"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}],
    "two": [{"mean": 0.5, "std": 0.5}, {"mean": [0.1, 0.2, 0.3], "std": -3}],
}


def one_after_the_other(array, settings, scale):
    """Every channel by itself, in single precision."""
    white = {"uint8": 255, "uint16": 65535}.get(array.dtype.name, 1) if scale else 1
    result = array.astype(np.float32) / np.float32(white)
    for each in settings:
        for channel in range(array.shape[-1]):
            mean, std = (
                np.float32(value[channel] if isinstance(value, list) else value)
                for value in (each.get("mean", 0), each.get("std", 1))
            )
            result[..., channel] = (result[..., channel] - mean) / std
    return result


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("name", NORMALIZES)
def test_one_pass_gives_the_same_bits(name, dtype, scale):
    transforms = [Normalize.model_validate({"normalize": each}) for each in NORMALIZES[name]]
    ending = Ending(transforms, scale)
    for shape in ((5, 7, 3), (1, 1, 3), (4, 5, 7, 3), (6, 3)):
        array = generator(0, "a").integers(0, 256, shape).astype(dtype)
        expected = one_after_the_other(array, NORMALIZES[name], scale)
        np.testing.assert_array_equal(ending.apply(array), expected)
        assert ending.apply(array).dtype == np.float32
        batch = np.full((2, *shape), np.nan, np.float32)
        ending.apply_into(array, batch[1])
        np.testing.assert_array_equal(batch[1], expected)
        assert np.isnan(batch[0]).all()


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 200])
def test_any_number_of_channels(channels):
    array = generator(0, "a").integers(0, 256, (6, 5, channels)).astype(np.uint8)
    for settings in ({"mean": 0.25, "std": 2}, {"mean": [0.25 * i for i in range(channels)], "std": 2}):
        ending = Ending([Normalize.model_validate({"normalize": settings})], True)
        np.testing.assert_array_equal(ending.apply(array), one_after_the_other(array, [settings], True))


def test_views_and_what_is_stored_stay_as_they_are():
    array = generator(0, "a").random((6, 5, 3)).astype(np.float32)
    array.flags.writeable = False
    ending = Ending([Normalize.model_validate({"normalize": {"mean": 1}})], True)
    np.testing.assert_array_equal(ending.apply(array[::-1, 1:4]), array[::-1, 1:4] - 1)
    view = (array * 255).astype(np.uint8)[::2, ::-1]
    np.testing.assert_array_equal(ending.apply(view), as_float(view) - 1)
    assert ending.apply(np.zeros((0, 5, 3), np.uint8)).shape == (0, 5, 3)
