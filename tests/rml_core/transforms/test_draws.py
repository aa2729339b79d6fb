"""What is drawn follows its distribution: fixed seeds, drawn as samples draw, one generator a sample and epoch."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rml_core.config.seed import generator
from rml_core.transforms import TRANSFORMS

# A right implementation fails one test in so many; which, the fixed seeds have decided.
LEVEL = 1e-3
EPOCHS, SAMPLES = 5, 400


def drawn(name, value, shape=(40, 60, 3)):
    """One draw for each sample and epoch."""
    transform = TRANSFORMS[name].model_validate({name: value})
    places = ((epoch, index) for epoch in range(1, EPOCHS + 1) for index in range(SAMPLES))
    return [transform.draw(generator(0, "transform", *place), shape) for place in places]


def uniform(values, low, high):
    assert ((values >= low) & (values <= high)).all()
    return stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > LEVEL


@pytest.mark.parametrize("name", ["jitter_crop", "random_zoom"])
@pytest.mark.parametrize("cmax", [0.1, 0.9])
def test_c_is_uniform_below_cmax_for_each_axis_by_itself(name, cmax):
    vertical, horizontal = np.array(drawn(name, cmax)).T
    for c in (vertical, horizontal):
        assert c.max() < cmax
        assert uniform(c, 0, cmax)
        assert len(set(c)) == EPOCHS * SAMPLES
    assert stats.pearsonr(vertical, horizontal).pvalue > LEVEL


def test_angles_are_uniform_on_both_sides():
    angles = np.array(drawn("random_rotate", 25))
    assert uniform(angles, -25, 25)
    # Neither neighbours nor epochs are alike.
    assert stats.pearsonr(angles[:-1], angles[1:]).pvalue > LEVEL
    assert stats.pearsonr(angles[:SAMPLES], angles[SAMPLES : 2 * SAMPLES]).pvalue > LEVEL


@pytest.mark.parametrize("name", ["random_horizontal_flip", "random_vertical_flip"])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_flips_are_as_probable_as_said(name, p):
    flips = drawn(name, p)
    assert stats.binomtest(sum(flips), len(flips), p).pvalue > LEVEL


def test_every_crop_size_comes_as_often_as_its_c():
    """Of 40 pixels and Cmax 0.5 round(20 c) go on each side: 0 to 10, the first and the last half as often."""
    transform = TRANSFORMS["jitter_crop"].model_validate({"jitter_crop": 0.5})
    array = np.zeros((40, 40, 1), np.uint8)
    cuts = [(40 - transform.apply(array, draw).shape[0]) // 2 for draw in drawn("jitter_crop", 0.5)]
    expected = np.array([0.5, *[1] * 9, 0.5]) * len(cuts) / 10
    assert stats.chisquare(np.bincount(cuts, minlength=11), expected).pvalue > LEVEL


def test_every_window_of_a_zoom_comes_as_often_as_its_c():
    """A ramp shows where the window begins."""
    transform = TRANSFORMS["random_zoom"].model_validate({"random_zoom": 0.5})
    ramp = np.arange(40, dtype=np.float32)[:, None, None].repeat(8, 1)
    draws = drawn("random_zoom", 0.5)[:500]
    steps = np.array([np.diff(transform.apply(ramp, draw)[[10, 30], 4, 0])[0] / 20 for draw in draws])
    # 40 (1 - c) rows over 40 pixels: from one to the next 1 - c.
    assert uniform(1 - steps.astype(np.float64), -1e-4, 0.5)
    np.testing.assert_allclose(1 - steps, [draw[0] for draw in draws], atol=1e-5)


def test_every_place_of_a_patch_comes_as_often_as_any_other():
    """A square of 3 has 4 x 6 places in 6 x 8 pixels."""
    corners = np.concatenate(drawn("random_patches", {"number": 3, "size": 3}, (6, 8, 3)))
    assert len(corners) == 3 * EPOCHS * SAMPLES
    counts = np.zeros((4, 6), int)
    np.add.at(counts, tuple(corners.T), 1)
    assert stats.chisquare(counts.ravel()).pvalue > LEVEL


def test_a_patch_as_large_as_the_sample_has_one_place():
    corners = np.concatenate(drawn("random_patches", {"number": 2, "size": 6}, (6, 6, 1)))
    np.testing.assert_array_equal(corners, 0)
