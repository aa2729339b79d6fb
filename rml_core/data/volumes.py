"""One big array in its file, read box by box: in memory there is what was asked for, and a bounded number of chunks.

How an array lies in its file decides how it is read, and what suits it:

- A `.npy`, an array of an `.npz` that is not compressed, and a contiguous HDF5 dataset of this machine are mapped: a
  box is a view of the file's pages (`mapped.py`). In these, what is near along the last axis is near on disk.
- Chunked HDF5 datasets, Zarr arrays, and everything behind URLs is read by chunk (`chunked.py`); a part of a chunk
  costs as much as all of it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from rml_core.data.arrays import integers
from rml_core.data.files import Form, Item

Box = tuple[slice, ...]
ALL = slice(None)


class Source(Protocol):
    """An array as it lies in its file, all its axes alike. `chunks`: what storage reads as a whole; None: any part.
    `fortran`: there are no chunks, and the first axis is the one whose values follow each other. `bytes_read`: from
    storage, so far."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def chunks(self) -> tuple[int, ...] | None: ...

    @property
    def fortran(self) -> bool: ...

    @property
    def bytes_read(self) -> int: ...

    def read(self, box: Box) -> np.ndarray:
        """The values in `box`, which has a start and a stop for each axis. Raises `RunFailed`."""
        ...

    def forget(self) -> None:
        """Let go of what is kept in memory to be read again."""
        ...

    def close(self) -> None: ...


class Volume:
    """An array (C, *space) that slices are cut from. Safe to use from several threads.

    `dtype`: as on disk, in this machine's byte order; of a mask, integers of at most 32 bits, in one channel. `chunks`:
    the block (C, *space) that storage reads as a whole; None: the file is mapped, and any part is as good. `fortran`:
    it is mapped, and what is near on disk is near along its first axis, not its last.
    """

    def __init__(self, source: Source, item: Item, form: Form) -> None:
        self.item = item
        self._source, self._form = source, form
        added = (1,) if form.add_channel else ()
        self.shape: tuple[int, ...] = added + source.shape
        self.chunks: tuple[int, ...] | None = None if source.chunks is None else added + source.chunks
        self.fortran = source.fortran
        self.dtype = self._taken(np.empty((1, 0), source.dtype)).dtype
        self._as_stored = not form.mask and self.dtype == source.dtype

    @property
    def bytes_read(self) -> int:
        """Bytes taken from storage so far: of a mapped file the pages that were touched, of chunks what they take
        there, compressed."""
        return self._source.bytes_read

    def read(self, box: Box, channels: slice = ALL) -> np.ndarray:
        """The values in `box`, a slice for each axis of space: (C, *sizes of the box), not to be written to: it may be
        a view of the file or of a chunk. `channels`: which of them.

        Raises:
            RunFailed: the file is damaged or shorter than it was, or a mask's values are no integers.
        """
        within = [*map(_within, (channels, *box), self.shape)]
        if self._form.add_channel:
            values = self._source.read(tuple(within[1:]))
            return (values if self._as_stored else self._taken(values))[None][within[0]]
        values = self._source.read(tuple(within))
        return values if self._as_stored else self._taken(values)

    def forget(self) -> None:
        """Let go of the chunks that are kept: they are decoded again when they are asked for."""
        self._source.forget()

    def close(self) -> None:
        """Let go of the file. Arrays that were read stay as they are."""
        self._source.close()

    def _taken(self, array: np.ndarray) -> np.ndarray:
        dtype = array.dtype.newbyteorder("=")
        array = array.astype(np.float64 if dtype.itemsize > 8 else dtype, copy=False)
        return integers(array, self.item) if self._form.mask else array


def _within(part: slice, size: int) -> slice:
    """`part` of an axis, with a start and a stop. Raises `ValueError` where it is no part."""
    start, stop = part.start, part.stop
    start, stop = (0 if start is None else start), (size if stop is None else stop)
    if not 0 <= start <= stop <= size or part.step not in (None, 1):
        raise ValueError(f"{part} is no part of an axis of {size}")
    return slice(start, stop)


def opened_volume(item: Item, form: Form, cache_bytes: int) -> Volume:
    """The array at `item`, without reading any of it. `cache_bytes`: how much of decoded chunks is kept.

    Raises:
        RunFailed: it cannot be read box by box: cut short, compressed as a whole, or with what is not installed.
    """
    return Volume(form.reader.volume(item, cache_bytes), item, form)
