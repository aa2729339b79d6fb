"""Turning and zooming about the centre: against scipy, against OpenCV, and against places written out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform, map_coordinates

from rml_core.config.seed import generator
from rml_core.transforms.section import FILLED
from rml_core.transforms.warps import RandomRotate, RandomZoom, Rotate

Sizes = st.integers(1, 40)
Parts = st.floats(0, 0.99)


def picture(height: int, width: int, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
    values = generator(0, "picture", height, width).random((height, width, channels))
    return (values * (255 if dtype == "uint8" else 60000)).astype(dtype)


def zoomed_places(size: int, c: float) -> np.ndarray:
    """Where the pixels of the result lie in the sample: the window without c S / 2 on each side, over all pixels."""
    cut = c * size / 2
    return cut + (np.arange(size) + 0.5) * (size - 2 * cut) / size - 0.5


@pytest.mark.parametrize("turns", [1, 2, 3, -1, 4])
@pytest.mark.parametrize("mask", [False, True])
def test_rotating_a_square_by_right_angles_moves_whole_pixels(turns, mask):
    for size in (6, 7):
        array = picture(size, size, 1)
        turned = Rotate(rotate=90.0 * turns).apply(array, mask=mask)
        np.testing.assert_array_equal(turned, np.rot90(array, -turns))


@pytest.mark.parametrize("degrees", [10.0, 45.0, -30.0, 137.0])
def test_rotate_is_clockwise_about_the_centre(degrees):
    array = cv2.GaussianBlur(picture(40, 60, 1).astype(np.float32), (0, 0), 2)[:, :, None]
    angle = np.radians(degrees)
    # rows grow downwards: a point at (row, column) comes from where a counter-clockwise turn takes it
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([19.5, 29.5])
    expected = affine_transform(
        array[:, :, 0].astype(np.float64), back, centre - back @ centre, order=1, mode="grid-constant", cval=0.0
    )
    turned = Rotate(rotate=degrees).apply(array)
    assert turned.shape == array.shape
    # OpenCV may place points to a 32nd of a pixel
    np.testing.assert_allclose(turned[:, :, 0], expected, atol=8)
    assert np.abs(turned[:, :, 0] - expected).mean() < 0.5


@pytest.mark.parametrize(("dtype", "wider"), [("uint8", "int16"), ("uint16", "int32"), ("int32", "int32")])
def test_a_rotated_mask_says_which_pixels_it_does_not_have(dtype, wider):
    mask = np.full((9, 13, 1), 200, dtype)
    turned = Rotate(rotate=30.0).apply(mask, mask=True)
    assert turned.dtype == wider
    assert set(np.unique(turned)) == {FILLED, 200}
    rows, columns = np.mgrid[:9, :13] - np.array([4, 6]).reshape(2, 1, 1)
    cos, sin = np.cos(np.radians(30)), np.sin(np.radians(30))
    x, y = cos * columns + sin * rows, -sin * columns + cos * rows
    outside = np.maximum(np.abs(x) - 6.5, np.abs(y) - 4.5)
    clear = np.abs(outside) > 0.05
    np.testing.assert_array_equal((turned[:, :, 0] == FILLED)[clear], (outside > 0)[clear])


@settings(deadline=None, max_examples=40)
@given(Sizes, Sizes, Parts, Parts, st.sampled_from(["uint8", "uint16", "float32"]), st.sampled_from([1, 3, 4]))
def test_zoom_shows_the_window_over_the_whole_sample(height, width, vertical, horizontal, dtype, channels):
    array = picture(height, width, channels, dtype)
    zoomed = RandomZoom(random_zoom=0.5).apply(array, np.array([vertical, horizontal]))
    assert (zoomed.shape, zoomed.dtype) == (array.shape, array.dtype)
    places = np.meshgrid(zoomed_places(height, vertical), zoomed_places(width, horizontal), indexing="ij")
    for channel in range(channels):
        expected = map_coordinates(array[:, :, channel].astype(np.float64), places, order=1, mode="nearest")
        # Integers are rounded; OpenCV's places have the 24 bits of float32, and neighbours differ by up to 60000.
        atol = 0.51 if dtype == "uint8" else 1
        np.testing.assert_allclose(zoomed[:, :, channel], expected, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_zoom_by_whole_pixels_is_opencvs_resize_of_the_crop(channels):
    array = picture(40, 60, channels)
    zoomed = RandomZoom(random_zoom=0.5).apply(array, np.array([0.2, 0.3]))
    expected = cv2.resize(array[4:-4, 9:-9], (60, 40), interpolation=cv2.INTER_LINEAR).reshape(40, 60, channels)
    # On the border the pixels outside of the window are neighbours too; a crop has lost them.
    np.testing.assert_allclose(zoomed[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1)


@settings(deadline=None, max_examples=40)
@given(Sizes, Sizes, Parts, Parts, st.sampled_from(["uint8", "uint16", "int32", "int64", "bool"]))
def test_zoom_of_a_mask_takes_the_nearest_pixel(height, width, vertical, horizontal, dtype):
    mask = picture(height, width, 1).astype(dtype)
    zoomed = RandomZoom(random_zoom=0.5).apply(mask, np.array([vertical, horizontal]), mask=True)
    assert zoomed.dtype == mask.dtype
    # The pixel in whose square the place lies.
    rows, columns = zoomed_places(height, vertical) + 0.5, zoomed_places(width, horizontal) + 0.5
    clear = [np.abs(places - np.round(places)) > 1e-9 for places in (rows, columns)]
    expected = mask[rows.astype(int)][:, columns.astype(int)]
    np.testing.assert_array_equal(zoomed[clear[0]][:, clear[1]], expected[clear[0]][:, clear[1]])


def test_zoom_of_a_mask_by_whole_pixels_is_opencvs():
    mask = picture(40, 60, 1)
    zoomed = RandomZoom(random_zoom=0.5).apply(mask, np.array([0.2, 0.3]), mask=True)
    expected = cv2.resize(mask[4:-4, 9:-9], (60, 40), interpolation=cv2.INTER_NEAREST_EXACT)
    # Where a place lies on the edge of two pixels, either is the nearest.
    assert (zoomed[:, :, 0] != expected).mean() < 0.03
    np.testing.assert_array_equal(np.unique(zoomed), np.intersect1d(zoomed, mask))


def test_no_zoom_is_the_sample_itself():
    for array in (picture(9, 13), picture(9, 13, 2, "float32")):
        np.testing.assert_array_equal(RandomZoom(random_zoom=0).apply(array, np.zeros(2)), array)


@pytest.mark.parametrize("mask", [False, True])
def test_random_rotate_is_rotate_by_the_angle_drawn(mask):
    array = picture(20, 31, 1)
    turned = RandomRotate(random_rotate=30).apply(array, -17.5, mask)
    np.testing.assert_array_equal(turned, Rotate(rotate=-17.5).apply(array, mask=mask))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 130])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_channel_is_turned_alike(channels, dtype):
    array = picture(11, 14, channels, dtype)
    turned = Rotate(rotate=33.0).apply(array)
    assert turned.dtype == array.dtype
    for channel in range(channels):
        alone = Rotate(rotate=33.0).apply(np.ascontiguousarray(array[:, :, channel : channel + 1]))
        np.testing.assert_array_equal(turned[:, :, channel], alone[:, :, 0])


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(2, 40), st.floats(-200, 200))
def test_what_is_turned_by_any_angle_is_bilinear_with_0_outside(height, width, degrees):
    array = picture(height, width, 1, "float32") / 60000
    angle = np.radians(degrees)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    y, x = rows - (height - 1) / 2, columns - (width - 1) / 2
    # From where a clockwise turn brings a pixel here (rows grow downwards).
    places = [
        -np.sin(angle) * x + np.cos(angle) * y + (height - 1) / 2,
        np.cos(angle) * x + np.sin(angle) * y + (width - 1) / 2,
    ]
    expected = map_coordinates(array[:, :, 0].astype(np.float64), places, order=1, mode="grid-constant", cval=0.0)
    turned = Rotate(rotate=degrees).apply(array)[:, :, 0]
    np.testing.assert_allclose(turned, expected, atol=1e-4)


def test_a_mask_of_large_numbers_keeps_them():
    mask = np.array([[2**40, -5], [70_000, 3]], np.int64)[:, :, None]
    turned = Rotate(rotate=90.0).apply(mask, mask=True)
    np.testing.assert_array_equal(turned[:, :, 0], np.rot90(mask[:, :, 0], -1))
