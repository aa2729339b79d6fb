"""The last step of every sample: what is left to do number by number, from the decoded type to float32."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from rml_core.transforms.section import TransformSection

# What 8 and 16 bit images are divided by to lie in [0, 1]; other types are never scaled.
WHITE = {np.dtype(np.uint8): np.float32(255), np.dtype(np.uint16): np.float32(65535)}
# A table of so many channels is looked up in one pass.
INTERLEAVED = 4


def as_float(array: np.ndarray, out: np.ndarray | None = None, scale: bool = True) -> np.ndarray:
    """`array` as float32, where `scale` 8 and 16 bit scaled to [0, 1]; into `out` where it is given."""
    white = WHITE.get(array.dtype) if scale else None
    if white is not None:
        return np.true_divide(array, white, out=out, dtype=np.float32)
    if out is None:
        return array.astype(np.float32, copy=False)
    out[...] = array
    return out


class Ending:
    """`as_float`, then the elementwise `transforms`: of 8 bit values by a table, which gives the same bits in one pass.

    `scale`: 8 and 16 bit become floats in [0, 1].
    """

    def __init__(self, transforms: Sequence[TransformSection], scale: bool) -> None:
        self._transforms, self._scale = tuple(transforms), scale

    def apply(self, array: np.ndarray) -> np.ndarray:
        """`array` (..., C) of any type as float32, never a view where there is something to do."""
        if not self._transforms:
            return as_float(array, scale=self._scale)
        return self.apply_into(array, np.empty(array.shape, np.float32))

    def apply_into(self, array: np.ndarray, out: np.ndarray) -> np.ndarray:
        """`apply`, into `out` (..., C), float32 and contiguous."""
        channels = 1 if self._alike else array.shape[-1]
        if array.dtype == np.uint8 and array.size and channels <= INTERLEAVED:
            return _looked_up(array, self._table(channels), out)
        as_float(array, out, self._scale)
        self.act_on(out)
        return out

    def act_on(self, array: np.ndarray) -> None:
        """The transforms alone, in place, on `array` (..., C) float32."""
        for transform in self._transforms:
            transform.apply_into(array)

    @cached_property
    def _tables(self) -> dict[int, np.ndarray]:
        return {}

    def _table(self, channels: int) -> np.ndarray:
        """(1, 256, channels): what becomes of each 8 bit value."""
        if channels not in self._tables:
            values = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], channels, axis=2)
            table = as_float(values, np.empty(values.shape, np.float32), self._scale)
            for transform in self._transforms:
                transform.apply_into(table)
            self._tables[channels] = table
        return self._tables[channels]

    @cached_property
    def _alike(self) -> bool:
        """Whether all channels are treated alike."""
        return all(transform.uniform for transform in self._transforms)


def _looked_up(array: np.ndarray, table: np.ndarray, out: np.ndarray) -> np.ndarray:
    import cv2

    channels = table.shape[2]
    as_rows = (len(array), -1) if channels == 1 else (len(array), -1, channels)
    cv2.LUT(np.ascontiguousarray(array).reshape(as_rows), table, out.reshape(as_rows))
    return out
