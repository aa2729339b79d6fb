"""Values: colour conversions against OpenCV, normalisation against arithmetic."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rml_core.config.problem import Refused
from rml_core.config.section import parse
from rml_core.config.seed import generator
from rml_core.transforms.color import ConvertColor, Normalize
from rml_core.transforms.section import DoesNotFit


def test_normalize_subtracts_the_mean_and_divides_by_the_deviation():
    array = generator(0, "a").random((4, 5, 3), np.float32)
    plain = parse(Normalize, {"normalize": {"mean": 0.5, "std": 2}}, "")
    channels = parse(Normalize, {"normalize": {"mean": [0.1, 0.2, 0.3], "std": [1, 2, -4]}}, "")
    np.testing.assert_allclose(plain.apply(array), (array - 0.5) / 2, rtol=1e-6)
    expected = np.stack([(array[..., 0] - 0.1), (array[..., 1] - 0.2) / 2, (array[..., 2] - 0.3) / -4], -1)
    np.testing.assert_allclose(channels.apply(array), expected, rtol=1e-5, atol=1e-7)


def test_normalize_applied_in_place_gives_the_same_bits():
    array = generator(0, "a").random((6, 4, 5, 3), np.float32)
    normalize = parse(Normalize, {"normalize": {"mean": [0.1, 0.2, 0.3], "std": 0.7}}, "")
    one_by_one = np.stack([normalize.apply(sample) for sample in array])
    normalize.apply_into(array)
    np.testing.assert_array_equal(array, one_by_one)


def test_normalize_with_another_number_of_channels():
    normalize = parse(Normalize, {"normalize": {"std": [1, 2]}}, "")
    with pytest.raises(DoesNotFit) as error:
        normalize.shape((4, 4, 3))
    assert str(error.value) == "std has 2 numbers, a sample has 3 channels"
    assert error.value.remedy == "give a number, or a list with one a channel"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"std": 0},
            "n.normalize.std: 0 cannot be divided by\n    allowed: a number other than 0, or a list with one a channel",
        ),
        (
            {"std": [1, 0]},
            "n.normalize.std: 0 cannot be divided by\n    allowed: a number other than 0, or a list with one a channel",
        ),
        ({"mean": "x"}, 'n.normalize.mean: "x" does not fit\n    allowed: a number'),
        ({"maen": 1}, 'n.normalize.maen: unknown key\n    allowed: mean, std\n    did you mean "mean"?'),
    ],
)
def test_what_normalize_refuses(given, text):
    with pytest.raises(Refused) as refused:
        parse(Normalize, {"normalize": given}, "n")
    assert str(refused.value) == text


@pytest.mark.parametrize("name", ["BGR2RGB", "COLOR_bgr2rgb", "bgr2hsv", "Bgr2GRAY", "BGR2Lab"])
def test_convert_color_is_opencvs(name):
    array = (generator(0, "a").random((4, 5, 3)) * 255).astype(np.uint8)
    code = getattr(
        cv2,
        "COLOR_"
        + {"bgr2hsv": "BGR2HSV", "Bgr2GRAY": "BGR2GRAY"}.get(name, "BGR2RGB" if "rgb" in name.lower() else name),
    )
    convert = ConvertColor(convert_color=name)
    expected = cv2.cvtColor(array, code).reshape(convert.shape(array.shape))
    np.testing.assert_array_equal(convert.apply(array), expected)


def test_convert_color_changes_the_channels():
    assert ConvertColor(convert_color="BGR2GRAY").shape((4, 5, 3)) == (4, 5, 1)
    assert ConvertColor(convert_color="GRAY2BGR").shape((4, 5, 1)) == (4, 5, 3)
    assert ConvertColor(convert_color="BGR2BGRA").shape((None, None, 3)) == (None, None, 4)


def test_convert_color_of_other_channels():
    with pytest.raises(DoesNotFit) as error:
        ConvertColor(convert_color="BGR2HSV").shape((4, 5, 1))
    assert str(error.value) == "BGR2HSV does not take samples of 1 channels"


def test_convert_color_that_packs_pixels():
    with pytest.raises(DoesNotFit) as error:
        ConvertColor(convert_color="BGR2YUV_I420").shape((4, 5, 3))
    assert str(error.value) == (
        "BGR2YUV_I420 changes the width or height: it packs pixels, it is not an image that comes out"
    )


def test_convert_color_unknown():
    with pytest.raises(Refused) as refused:
        parse(ConvertColor, {"convert_color": "color_BRG2RGB"}, "n")
    assert str(refused.value) == (
        'n.convert_color: unknown colour conversion "BRG2RGB"\n'
        "    allowed: OpenCV's names, with or without COLOR_: BGR2RGB, BGR2GRAY, ...\n"
        '    did you mean "BGR2RGB"?'
    )
