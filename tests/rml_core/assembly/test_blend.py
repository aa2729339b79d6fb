from __future__ import annotations

import numpy as np
import pytest

from rml_core.assembly.blend import Blend, gaussian, scale
from rml_core.assembly.regions import Regions
from rml_core.slicers.grid import Axis, SliceGrid


@pytest.mark.parametrize("sizes", [(64, 64, 64), (5, 8, 3), (7, 1, 2)])
def test_gaussian_weights_are_those_of_monai(sizes: tuple[int, ...]):
    """`compute_importance_map(mode="gaussian", sigma_scale=0.125)` of MONAI 1.4, but for its least weight of 0.001:
    exp(x^2 / (-2 sigma^2)) of x = -(size - 1) / 2 ... (size - 1) / 2, an axis after the other."""
    importance = np.ones(())
    for size in sizes:
        x = np.arange(start=-(size - 1) / 2.0, stop=(size - 1) / 2.0 + 1)
        importance = importance[..., None] * np.exp(x**2 / (-2 * (size * 0.125) ** 2))
    grid = SliceGrid("set", tuple(Axis(4 * size + 2, size, max(size // 2, 1)) for size in sizes))
    weights = Blend(Regions(grid, 1), "gaussian").weights
    assert weights is not None
    assert weights.dtype == np.float32
    np.testing.assert_allclose(np.broadcast_to(weights, sizes), importance, rtol=1e-6)


def test_nothing_is_weighted_where_nothing_overlaps():
    apart = SliceGrid("set", (Axis(16, 4, 4), Axis(16, 4, 6), Axis(4, 4, 1)))
    assert Blend(Regions(apart, 1), "gaussian").weights is None
    along_one = SliceGrid("set", (Axis(16, 4, 4), Axis(16, 4, 2)))
    weights = Blend(Regions(along_one, 1), "gaussian").weights
    assert weights is not None
    assert weights.shape == (1, 4)
    assert Blend(Regions(along_one, 1), "mean").weights is None


@pytest.mark.parametrize("name", ["mean", "gaussian"])
@pytest.mark.parametrize(
    "axis",
    [Axis(17, 4, 2), Axis(17, 5, 3), Axis(17, 4, 4), Axis(17, 3, 5), Axis(17, 5, 1), Axis(20, 6, 4, 0, 0, True)],
)
def test_scales_are_one_by_the_sum_of_weights(axis: Axis, name: str):
    sums = np.zeros(axis.extent + axis.size)
    for place in range(axis.count):
        weights = gaussian(axis.size) if name == "gaussian" and axis.overlaps else np.ones(axis.size)
        sums[axis.start(place) : axis.start(place) + axis.size] += weights
    sums = sums[: axis.extent]
    expected = np.where(sums > 0, 1 / np.where(sums > 0, sums, 1), np.nan)
    np.testing.assert_allclose(scale(axis, name, 0, axis.extent), expected, rtol=1e-12)
    np.testing.assert_allclose(scale(axis, name, 3, axis.extent), expected[3:], rtol=1e-12)


def test_the_sign_of_zero_stays(one_set, ring):
    """Sums begin with what adding to changes nothing."""
    grid = SliceGrid("set", (Axis(8, 4, 2), Axis(8, 4, 4)))
    found = one_set(grid, ring(), np.full((grid.count, 1, 4, 4), -0.0, np.float32))
    assert np.signbit(found).all()
