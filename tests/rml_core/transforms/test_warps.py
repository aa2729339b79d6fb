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
