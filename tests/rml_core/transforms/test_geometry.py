"""Geometry against numpy and scipy written out, and against OpenCV."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.seed import generator
from rml_core.transforms import TRANSFORMS
from rml_core.transforms.geometry import CenterCrop, JitterCrop, RandomHorizontalFlip, RandomVerticalFlip, Resize
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


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(1e-3, 0.999), st.integers(0, 10_000), st.booleans())
def test_jitter_crop_cuts_the_same_from_both_sides_of_an_axis(height, width, cmax, index, mask):
    array = picture(height, width, 1)
    jitter = JitterCrop(jitter_crop=cmax)
    draw = jitter.draw(generator(0, "draw", index), array.shape)
    assert ((draw >= 0) & (draw < cmax)).all()
    cropped = jitter.apply(array, draw, mask)
    top, left = (round(c * size / 2) for c, size in zip(draw, (height, width), strict=True))
    # Of the shortest axes a pixel stays.
    top, left = min(top, (height - 1) // 2), min(left, (width - 1) // 2)
    np.testing.assert_array_equal(cropped, array[top : height - top, left : width - left])
    least = jitter.least(array.shape)
    assert all(low <= size <= high for low, size, high in zip(least, cropped.shape, array.shape, strict=True))
    assert jitter.shape(array.shape) == array.shape


def test_jitter_crop_of_unknown_sizes_is_unknown():
    assert JitterCrop(jitter_crop=0.5).least((None, 30, 2)) == (None, 14, 2)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "uint32", "int64", "uint64", "float16", "float64"])
@pytest.mark.parametrize("channels", [1, 3, 5, 200])
def test_what_moves_by_whole_pixels_may_be_of_any_type(dtype, channels):
    array = (picture(5, 7, channels, "float64") / 9).astype(dtype)
    if dtype in ("int64", "uint64"):
        array = array + np.array(2**60, dtype)
    flipped = RandomHorizontalFlip(random_horizontal_flip=1).apply(array, True)
    assert flipped.dtype == array.dtype
    np.testing.assert_array_equal(flipped, array[:, ::-1])
    np.testing.assert_array_equal(JitterCrop(jitter_crop=0.9).apply(array, np.array([0.4, 0.5])), array[1:-1, 2:-2])
    enlarged = Resize(resize=(14, 10)).apply(array, mask=True)
    assert enlarged.dtype == array.dtype
    np.testing.assert_array_equal(enlarged, array.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("channels", [2, 5, 9, 200])
def test_resize_takes_any_number_of_channels(channels):
    array = picture(5, 7, channels, "float32")
    resized = Resize(resize=(9, 11)).apply(array)
    np.testing.assert_allclose(resized, bilinear(array, 9, 11), rtol=1e-4)


def test_a_flip_of_a_view_is_the_flip_of_what_it_shows():
    whole = picture(9, 12, 4)
    for view in (whole[2:7, 1:9], whole[:, :, 1:3], whole[::2, ::3], whole[::-1], whole.transpose(1, 0, 2)):
        for axis, flip in enumerate(
            (RandomVerticalFlip(random_vertical_flip=1), RandomHorizontalFlip(random_horizontal_flip=1))
        ):
            np.testing.assert_array_equal(flip.apply(view, True), np.flip(view, axis))
