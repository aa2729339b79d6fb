"""Images of 1, 3 and 4 channels, of 8 and 16 bit, and what the keys about grey make of them, against the pixels."""

from __future__ import annotations

import numpy as np
import pytest

# https://docs.opencv.org/4.x/de/d25/imgproc_color_conversions.html: grey of blue, green and red.
GREY = np.array([0.114, 0.587, 0.299])


def colours(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) as three channels: grey thrice, without alpha."""
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]


def grey(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.shape[2] == 1 else (pixels[..., :3] @ GREY)[..., None]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("keys", "of_inputs", "of_targets"),
    [
        ({}, colours, colours),
        ({"grayscale": True}, grey, grey),
        ({"input_grayscale": True}, grey, colours),
        ({"target_grayscale": True}, colours, grey),
    ],
)
@pytest.mark.parametrize("preload", [True, False])
def test_inputs_and_targets_have_the_channels_that_are_asked_for(
    work, channels, dtype, keys, of_inputs, of_targets, preload
):
    """An autoencoder: the targets are the inputs."""
    pixels = np.stack([work.write(f"in/{i}.png", channels=channels, dtype=dtype) for i in range(3)])
    white = np.iinfo(dtype).max
    (batch,) = work.batches(False, type="images", input_path="in", target_path="in", preload=preload, **keys)
    for arrays, made in ((batch.inputs, of_inputs), (batch.targets, of_targets)):
        expected = np.stack([made(each) for each in pixels]).transpose(0, 3, 1, 2) / white
        assert arrays.shape == expected.shape
        # OpenCV's weights of grey have 14 bits, and its result is rounded to the file's own depth.
        grey_levels = 1 + white / 2**14
        np.testing.assert_allclose(arrays, expected, rtol=0, atol=grey_levels / white if made is grey else 1e-7)


@pytest.mark.parametrize("tag", ["training_tag", "test_tag", "testing_tag"])
def test_a_tag_names_the_folder_above_the_classes(work, tag):
    """The class is right below the tag, however deep the file lies; the tag may stand above the folder itself."""
    for name in ("set/cats/2020/a.png", "set/dogs/2021/may/b.png", "set/dogs/c.png"):
        work.write(f"data/{name}")
    role, key = ("training", "input_path") if tag == "training_tag" else ("test", "test_input_path")
    for path, value in (("data", "set"), ("data/set", "set"), ("data/set/dogs", "set")):
        found = work.survey(role, target_type="labels", **{key: path, tag: value})
        expected = {"cats": 0, "dogs": 1} if path != "data/set/dogs" else {"dogs": 0}
        assert found.labels == tuple(expected["cats" if "/cats/" in item.file else "dogs"] for item in found.inputs)
