"""Decoding: what OpenCV reads, the orientation, and files that are damaged."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from rml_core.config.problem import RunFailed
from rml_core.data import images
from rml_core.data.files import Form, Header, Item


def noise(height=6, width=8, channels=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".ras"])
def test_bytes_are_read_as_blue_green_red(tmp_path, suffix):
    red_green_blue = noise()
    path = str(tmp_path / f"a{suffix}")
    assert cv2.imwrite(path, red_green_blue[:, :, ::-1])
    np.testing.assert_array_equal(images.decode(path), red_green_blue[:, :, ::-1])
    assert images.size(path) == (6, 8)
    assert images.is_image(path.upper())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_kept(tmp_path, suffix):
    array = noise(dtype=np.uint16)
    path = str(tmp_path / f"a{suffix}")
    assert cv2.imwrite(path, array)
    np.testing.assert_array_equal(images.decode(path), array)
    assert images.decode(path, grayscale=True).dtype == np.uint16


@pytest.mark.parametrize("suffix", [".tif", ".pfm", ".hdr"])
def test_floats_are_kept_grey_or_not(tmp_path, suffix):
    array = np.full((6, 8, 3), 0.5, np.float32)
    path = str(tmp_path / f"a{suffix}")
    assert cv2.imwrite(path, array)
    np.testing.assert_array_equal(images.decode(path), array)
    np.testing.assert_allclose(images.decode(path, grayscale=True), array[:, :, :1], rtol=1e-6)


def test_grey_files_become_three_channels_and_colour_files_one(tmp_path):
    grey, colour = noise(channels=1), noise()
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "colour.png"), colour)
    np.testing.assert_array_equal(images.decode(str(tmp_path / "grey.png")), np.repeat(grey, 3, axis=2))
    expected = colour @ np.array([0.114, 0.587, 0.299])
    got = images.decode(str(tmp_path / "colour.png"), grayscale=True)
    assert got.shape == (6, 8, 1)
    np.testing.assert_allclose(got[:, :, 0], expected, atol=1)


def test_alpha_is_dropped(tmp_path):
    array = noise(channels=4)
    cv2.imwrite(str(tmp_path / "a.png"), array)
    np.testing.assert_array_equal(images.decode(str(tmp_path / "a.png")), array[:, :, :3])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path, suffix, orientation):
    # EXIF 2.32, table 6: where the stored row 0 and column 0 are seen
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }[orientation]
    stored = np.zeros((16, 32), np.uint8)
    stored[:8, :16], stored[:8, 16:], stored[8:, :16] = 240, 160, 80
    path = str(tmp_path / f"a{suffix}")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.repeat(stored[:, :, None], 3, axis=2)).save(path, exif=exif)
    seen = images.decode(path, grayscale=True)
    assert images.size(path) == seen.shape[:2]
    assert np.abs(seen[:, :, 0].astype(int) - turn(stored)).mean() < 6


def test_half_a_file_does_not_decode(tmp_path):
    for suffix in (".jpg", ".png", ".bmp", ".tif", ".webp"):
        path = tmp_path / f"a{suffix}"
        cv2.imwrite(str(path), noise(40, 60))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(RunFailed) as failed:
            images.decode(str(path))
        why = "the JPEG file is cut short" if suffix == ".jpg" else "not an image that OpenCV reads, or damaged"
        assert str(failed.value) == f"{path}: cannot be decoded: {why}"


def test_a_jpeg_with_a_thumbnail_that_is_cut_short(tmp_path):
    thumbnail, path = tmp_path / "t.jpg", tmp_path / "a.jpg"
    cv2.imwrite(str(thumbnail), noise(8, 8))
    cv2.imwrite(str(path), noise(40, 60))
    inside = thumbnail.read_bytes()
    data = path.read_bytes()
    whole = data[:2] + b"\xff\xe1" + (len(inside) + 2).to_bytes(2, "big") + inside + data[2:]
    path.write_bytes(whole + b"what a phone adds behind the end")
    assert images.decode(str(path)).shape == (40, 60, 3)
    path.write_bytes(whole[:-30])
    with pytest.raises(RunFailed):
        images.decode(str(path))


def test_files_that_are_empty_or_gone(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(RunFailed) as failed:
        images.decode(str(tmp_path / "a.png"))
    assert str(failed.value) == f"{tmp_path}/a.png: cannot be decoded: the file is empty"
    with pytest.raises(RunFailed) as failed:
        images.decode(str(tmp_path / "b.png"))
    assert str(failed.value) == f"{tmp_path}/b.png: cannot be read: No such file or directory"


def test_masks_keep_their_values(tmp_path):
    for dtype in (np.uint8, np.uint16):
        array = noise(channels=1, dtype=dtype)
        cv2.imwrite(str(tmp_path / "m.png"), array)
        read = images.decode_mask(str(tmp_path / "m.png"))
        assert read.dtype == dtype
        np.testing.assert_array_equal(read, array)


def test_a_colour_mask_needs_to_be_read_as_grey(tmp_path):
    path = str(tmp_path / "m.png")
    cv2.imwrite(path, noise())
    with pytest.raises(RunFailed) as failed:
        images.decode_mask(path)
    assert str(failed.value) == (
        f"{path}: a mask has one channel, this file has colours; set target_grayscale to read it as grey"
    )
    assert images.decode_mask(path, grayscale=True).shape == (6, 8, 1)


def test_a_mask_of_fractions(tmp_path):
    path = str(tmp_path / "m.tif")
    cv2.imwrite(path, np.full((4, 4), 2, np.float32))
    np.testing.assert_array_equal(images.decode_mask(path)[:, :, 0], np.full((4, 4), 2))
    cv2.imwrite(path, np.full((4, 4), 0.5, np.float32))
    with pytest.raises(RunFailed) as failed:
        images.decode_mask(path)
    assert str(failed.value) == f"{path}: a mask holds integers, this file has fractions"


@pytest.fixture(params=[images.AT_ONCE, 4], ids=["small", "large"])
def small_or_large(request, monkeypatch):
    """A file that is read at one go, and one that is too large for that."""
    monkeypatch.setattr(images, "AT_ONCE", request.param)


@pytest.mark.usefixtures("small_or_large")
@pytest.mark.parametrize("behind", [b"IDAT", b"IEND"])
def test_the_orientation_of_a_png_may_stand_before_or_behind_its_pixels(behind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    whole = cv2.imencode(".png", np.zeros((10, 14), np.uint8))[1].tobytes()
    at = whole.index(behind) - 4
    (tmp_path / "a.png").write_bytes(whole[:at] + chunk + whole[at:])
    assert images.decode(str(tmp_path / "a.png")).shape == (14, 10, 3)
    assert images.size(str(tmp_path / "a.png")) == (14, 10)


@pytest.mark.usefixtures("small_or_large")
def test_the_size_of_a_png_is_read_without_its_pixels(tmp_path):
    whole = cv2.imencode(".png", np.zeros((10, 14), np.uint8))[1].tobytes()
    pixels = whole.index(b"IDAT") + 4
    (tmp_path / "a.png").write_bytes(whole[:pixels] + bytes(8) + whole[pixels + 8 :])
    assert images.size(str(tmp_path / "a.png")) == (10, 14)
    for length in range(8, len(whole) - 8):
        (tmp_path / "a.png").write_bytes(whole[:length])
        with pytest.raises(RunFailed, match=r"a\.png: cannot be decoded"):
            images.size(str(tmp_path / "a.png"))


def test_sizes_of_many_files(tmp_path):
    paths = []
    for i in range(20):
        paths.append(str(tmp_path / f"{i}.png"))
        cv2.imwrite(paths[-1], noise(3 + i, 5))
    (tmp_path / "3.png").write_text("not an image")
    headers, failures = images.READER.measure([Item(path) for path in paths], Form("images"))
    assert headers == [None if i == 3 else Header((3, 3 + i, 5), "") for i in range(20)]
    assert failures == [f"{paths[3]}: cannot be decoded: not an image that OpenCV reads, or damaged"]
