"""Geometry against numpy and scipy written out, and against OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.seed import generator
from rml_core.transforms import TRANSFORMS
from rml_core.transforms.geometry import CenterCrop, RandomHorizontalFlip, RandomVerticalFlip, Resize
from rml_core.transforms.section import DoesNotFit

Sizes = st.integers(1, 12)


def picture(height: int, width: int, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    values = generator(0, "picture", height, width).random((height, width, channels))
    return (values * 255).astype(dtype) if dtype == "uint8" else (values * 65535).astype(dtype)


def bilinear(array: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixel centres aligned, the border repeated: OpenCV's INTER_LINEAR, one axis after the other."""
    result = array.astype(np.float64)
    for axis, size in ((0, height), (1, width)):
        length = array.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, length - 1)
        weight = (at - low).reshape([-1 if i == axis else 1 for i in range(3)])
        result = np.take(result, low, axis) * (1 - weight) + np.take(result, high, axis) * weight
    return result


@settings(deadline=None, max_examples=40)
@given(Sizes, Sizes, Sizes, Sizes, st.sampled_from([1, 3]), st.sampled_from(["uint8", "uint16", "float32"]))
def test_resize_is_bilinear(height, width, new_height, new_width, channels, dtype):
    array = picture(height, width, channels, dtype)
    resize = Resize(resize=(new_width, new_height))
    resized = resize.apply(array)
    assert resized.shape == resize.shape(array.shape) == (new_height, new_width, channels)
    assert resized.dtype == array.dtype
    np.testing.assert_allclose(resized, bilinear(array, new_width, new_height), rtol=1e-4, atol=1.01)


@settings(deadline=None, max_examples=40)
@given(Sizes, Sizes, Sizes, Sizes)
def test_resize_of_a_mask_is_nearest(height, width, new_height, new_width):
    mask = picture(height, width, 1)
    resized = Resize(resize=(new_width, new_height)).apply(mask, mask=True)
    rows = np.arange(new_height) * height // new_height
    columns = np.arange(new_width) * width // new_width
    np.testing.assert_array_equal(resized, mask[rows][:, columns])


@settings(deadline=None, max_examples=40)
@given(Sizes, Sizes, st.data())
def test_center_crop(height, width, data):
    new_height, new_width = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    array = picture(height, width)
    crop = CenterCrop(center_crop=(new_width, new_height))
    cropped = crop.apply(array)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    assert cropped.shape == crop.shape(array.shape)
    np.testing.assert_array_equal(cropped, array[top : top + new_height, left : left + new_width])


def test_center_crop_larger_than_the_sample():
    with pytest.raises(DoesNotFit) as error:
        CenterCrop(center_crop=(10, 4)).shape((5, 8, 3))
    assert str(error.value) == "10 x 4 is larger than a sample of 8 x 5 (width x height)"
    assert error.value.remedy == "crop less, or `resize` before it"


def test_center_crop_of_unknown_sizes_is_unknown():
    assert CenterCrop(center_crop=(10, 4)).shape((None, None, 3)) == (None, None, 3)


@pytest.mark.parametrize(("flip", "axis"), [(RandomHorizontalFlip, 1), (RandomVerticalFlip, 0)])
def test_flips(flip, axis):
    array = picture(5, 7)
    key = next(iter(flip.model_fields))
    transform = flip(**{key: 0.25})
    np.testing.assert_array_equal(transform.apply(array, True), np.flip(array, axis))
    np.testing.assert_array_equal(transform.apply(array, False), array)
    draws = [transform.draw(generator(0, "draw", i), array.shape) for i in range(2000)]
    assert 0.2 < np.mean(draws) < 0.3
    assert not flip(**{key: 0.0}).draw(generator(0), array.shape)
    assert flip(**{key: 1.0}).draw(generator(0), array.shape)


def test_the_table_says_each_transforms_own_key():
    for name, model in TRANSFORMS.items():
        assert list(model.model_fields) == [name]
