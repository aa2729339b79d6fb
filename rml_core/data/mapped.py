"""Arrays whose bytes lie in a file as they are in memory, at any offset: mapped, or behind URLs read by ranges."""

from __future__ import annotations

import mmap
from math import prod
from typing import Any

import numpy as np

from rml_core.config import remote, roots
from rml_core.config.paths import is_url
from rml_core.config.problem import RunFailed
from rml_core.data.arrays import reason
from rml_core.data.chunked import Chunked, Taken, runs
from rml_core.data.files import Item
from rml_core.data.page_cache import PageCache, runs_of
from rml_core.data.volumes import Box, Source

PAGE = mmap.PAGESIZE
# So many bytes a request to a server.
RANGE = 1 << 22


def lying_at(
    item: Item, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool, cache_bytes: int
) -> Source:
    """The array of `shape` that begins at `offset` of its file. Raises `RunFailed`."""
    if not is_url(item.file):
        return Mapped(item, item.file, offset, shape, dtype, fortran)
    try:
        ranges = remote.Ranges(item.file)
    except OSError as error:
        raise RunFailed(f"{item}: cannot be read: {error.strerror or reason(error)}") from None
    block = runs(shape, dtype.itemsize, RANGE, fortran)
    steps = np.cumprod([1, *(shape[:-1] if fortran else shape[:0:-1])])
    strides = [int(step) for step in (steps if fortran else steps[::-1])]

    taken = Taken()

    def fetch(box: Box) -> np.ndarray:
        sizes = [part.stop - part.start for part in box]
        at = offset + dtype.itemsize * sum(part.start * step for part, step in zip(box, strides, strict=True))
        stop = at + prod(sizes) * dtype.itemsize
        try:
            data = ranges.read(at, stop)
        except OSError as error:
            raise RunFailed(f"{item}: cannot be read: {error.strerror or reason(error)}") from None
        if len(data) < stop - at:
            raise RunFailed(f"{item}: is cut short: bytes {at} to {stop} were asked for, and {len(data)} came")
        taken.add(len(data))
        return np.frombuffer(data, dtype).reshape(sizes, order="F" if fortran else "C")

    return Chunked(shape, dtype, block, fetch, taken, cache_bytes, parallel=True, close_it=ranges.close)


class Mapped:
    """The array of `shape` that begins at `offset` of the file `path`; a `Source`."""

    chunks: None = None

    def __init__(
        self, item: Item, path: str, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool = False
    ) -> None:
        """Raises `RunFailed` where the file is not there or ends before the array does."""
        self.item, self.shape, self.dtype, self.fortran = item, shape, dtype, fortran
        self._offset, self._end = offset, offset + prod(shape) * dtype.itemsize
        self._taken = Taken()
        # By the shape of a box, the bytes of its pages.
        self._pages: dict[tuple[int, ...], int] = {}
        try:
            self._cache = PageCache(path, offset)
            self._check()
            with roots.opened(path) as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise RunFailed(f"{item}: cannot be read: {error.strerror}") from None
        self._array = np.ndarray(shape, dtype, mapped, offset, order="F" if fortran else "C")

    @property
    def bytes_read(self) -> int:
        return self._taken.bytes

    def read(self, box: Box) -> np.ndarray:
        self._check()
        found = self._array[box]
        if found.size:
            taken = self._pages.get(found.shape)
            if taken is None:
                run, outer = runs_of(found, PAGE)
                taken = self._pages[found.shape] = prod(size for _, size in outer) * -(-run // PAGE) * PAGE
            self._taken.add(taken)
            if self._cache.looks():
                start = sum(part.start * step for part, step in zip(box, self._array.strides, strict=True))
                self._cache.want(self._offset + start, found)
        return found

    def forget(self) -> None:
        pass

    def close(self) -> None:
        self._cache.close()

    def _check(self) -> None:
        """Pages behind the end of a file end the process that touches them."""
        size = self._cache.size()
        if size < self._end:
            raise RunFailed(f"{self.item}: is cut short: it takes {self._end} bytes, and there are {size}")
