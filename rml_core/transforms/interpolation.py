"""OpenCV's arithmetic on arrays (H, W, C) of any number of channels, several threads at once.

Where OpenCV is handed the place for its result, it works without Python's lock from the beginning to the end; otherwise
it takes the lock in the middle, for the memory.

Bilinear values are made of uint8, uint16 and float32: of other types OpenCV has no function, or rounds places to a
32nd of a pixel. Masks, and what moves by whole pixels, may be of any type.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from rml_core.transforms.section import FILLED

# More channels go in groups: OpenCV has an upper limit, and its exact paths are for few of them.
GROUP = 4
# The types whose elements OpenCV moves as they are: it takes int64 for int32.
MOVED = frozenset(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64"))


def resized(array: np.ndarray, width: int, height: int, mask: bool) -> np.ndarray:
    """To width x height: bilinear, pixel centres aligned, the border repeated; nearest for masks."""
    if mask:
        rows = np.arange(height) * array.shape[0] // height
        columns = np.arange(width) * array.shape[1] // width
        return array.take(rows, 0).take(columns, 1)

    def resize(group: np.ndarray) -> np.ndarray:
        out = np.empty((height, width, group.shape[2]), group.dtype)
        cv2.resize(group, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
        return out

    return _in_groups(array, resize)


def flipped(array: np.ndarray, axis: int) -> np.ndarray:
    """`array` with the pixels along `axis` (0: rows, 1: columns) in reverse order."""
    if array.dtype in MOVED and array.shape[2] <= GROUP:
        out = np.empty(array.shape, array.dtype)
        cv2.flip(_plain(array), axis, dst=out)
        return out
    return np.flip(array, axis)


def enlarged(array: np.ndarray, top: float, left: float, mask: bool) -> np.ndarray:
    """What is left when `top` pixels above and below and `left` pixels on both sides are cut off (fractions count),
    at the size of `array`: bilinear, or nearest for masks."""
    height, width = array.shape[:2]
    tall, wide = 1 - 2 * top / height, 1 - 2 * left / width
    if mask:
        rows = np.floor(top + (np.arange(height) + 0.5) * tall).astype(np.intp)
        columns = np.floor(left + (np.arange(width) + 0.5) * wide).astype(np.intp)
        return array.take(rows, 0).take(columns, 1)
    # The centre stays where it is; no place lies outside, but for the last digit.
    back = np.array([[wide, 0, (1 - wide) * (width - 1) / 2], [0, tall, (1 - tall) * (height - 1) / 2]])
    return _in_groups(array, lambda group: _warped(group, back, cv2.BORDER_REPLICATE))


def moved(array: np.ndarray, back: np.ndarray, mask: bool) -> np.ndarray:
    """`array` where `back` (2, 3) takes a pixel (x, y, 1) of the result to its place in `array`: bilinear, 0 outside.

    A mask takes the nearest pixel and becomes a signed type, `FILLED` where it has none.
    """
    if not mask:
        return _in_groups(array, lambda group: _warped(group, back, cv2.BORDER_CONSTANT))
    height, width = array.shape[:2]
    narrow = array.dtype in (np.uint8, np.int8, np.int16)
    turned = cv2.warpAffine(
        array.astype(np.int16 if narrow else np.float64),
        back,
        (width, height),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderValue=FILLED,
    )
    signed = np.int16 if narrow else np.int32 if array.dtype in (np.uint16, np.int32) else np.int64
    return turned.reshape(array.shape).astype(signed, copy=False)


def with_fourth(array: np.ndarray) -> np.ndarray:
    """An array of three channels with a fourth one that means nothing."""
    out = np.empty((*array.shape[:2], 4), array.dtype)
    cv2.cvtColor(_plain(array), cv2.COLOR_BGR2BGRA, dst=out)
    return out


def without_fourth(array: np.ndarray) -> np.ndarray:
    """The first three of four channels."""
    out = np.empty((*array.shape[:2], 3), array.dtype)
    cv2.cvtColor(_plain(array), cv2.COLOR_BGRA2BGR, dst=out)
    return out


def _warped(group: np.ndarray, back: np.ndarray, border: int) -> np.ndarray:
    height, width, channels = group.shape
    # Of two channels OpenCV rounds places to a 32nd of a pixel. Of three it gathers each by itself: with a fourth one
    # it is twice as fast, and the bits are the same.
    if channels == 2:
        group = np.concatenate([group, np.zeros_like(group)], axis=2)
    elif channels == 3:
        group = with_fourth(group)
    out = np.empty(group.shape, group.dtype)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(group, back, (width, height), out, flags=flags, borderMode=border, borderValue=(0, 0, 0, 0))
    if channels == 2:
        return np.ascontiguousarray(out[:, :, :2])
    return without_fourth(out) if channels == 3 else out


def _in_groups(array: np.ndarray, apply: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`apply` to every so many channels of `array`."""
    channels = array.shape[2]
    if channels <= GROUP:
        return apply(_plain(array))
    groups = [array[:, :, at : at + GROUP] for at in range(0, channels, GROUP)]
    return np.concatenate([apply(np.ascontiguousarray(group)) for group in groups], axis=2)


def _plain(array: np.ndarray) -> np.ndarray:
    """`array` as OpenCV takes it: rows may lie apart, what is in them may not."""
    height, width, channels = array.strides
    size = array.itemsize
    lies_well = channels == size and width == size * array.shape[2] and height >= width * array.shape[1]
    return array if lies_well else np.ascontiguousarray(array)
