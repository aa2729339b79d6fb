"""Arrays that storage gives in chunks: each is decoded once while it is among those that are kept."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Any

import numpy as np

from rml_core.data.volumes import Box

Index = tuple[int, ...]

# So many requests at once where each is a way to a server and back.
REQUESTS = 8


class ChunkCache:
    """The chunks used last, of `limit` bytes together. Who wants a chunk that another thread is reading waits for
    it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[Index, np.ndarray] = OrderedDict()
        self._reading: dict[Index, Future[np.ndarray]] = {}
        self._lock = threading.Lock()

    def get(self, index: Index, read: Callable[[Index], np.ndarray]) -> np.ndarray:
        """The chunk `index`, kept or by `read`. Raises what that raises, in all threads that wait for it."""
        with self._lock:
            kept = self._kept.get(index)
            if kept is not None:
                self._kept.move_to_end(index)
                return kept
            future = self._reading.get(index)
            mine = future is None
            if future is None:
                future = self._reading[index] = Future()
        if not mine:
            return future.result()
        try:
            chunk = read(index)
        except BaseException as error:
            with self._lock:
                del self._reading[index]
            future.set_exception(error)
            raise
        with self._lock:
            del self._reading[index]
            self._keep(index, chunk)
        future.set_result(chunk)
        return chunk

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _keep(self, index: Index, chunk: np.ndarray) -> None:
        if chunk.nbytes > self._limit:
            return
        self._kept[index] = chunk
        self._bytes += chunk.nbytes
        while self._bytes > self._limit:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


class Taken:
    """Counts bytes, in all threads."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self.bytes += count


class Chunked:
    """An array in chunks of `chunks`, the last ones of each axis cut off; a `Source`.

    `fetch(box)` reads one of them, and adds to `taken` what it took from storage; it is called from several threads.
    `parallel`: it waits for a server most of the time. `close_it` is called once.
    """

    fortran = False

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunks: tuple[int, ...],
        fetch: Callable[[Box], np.ndarray],
        taken: Taken,
        cache_bytes: int,
        parallel: bool = False,
        close_it: Callable[[], None] = lambda: None,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self.chunks: tuple[int, ...] = tuple(min(chunk, size) for chunk, size in zip(chunks, shape, strict=True))
        self._fetch, self._taken, self._close = fetch, taken, close_it
        self._cache = ChunkCache(cache_bytes)
        self._pool = ThreadPoolExecutor(REQUESTS, "rml-requests") if parallel else None

    @property
    def bytes_read(self) -> int:
        return self._taken.bytes

    def read(self, box: Box) -> np.ndarray:
        ranges = [
            range(part.start // chunk, -(-part.stop // chunk)) if part.stop > part.start else range(0)
            for part, chunk in zip(box, self.chunks, strict=True)
        ]
        if all(len(places) == 1 for places in ranges):
            index = tuple(places.start for places in ranges)
            return self._part(index, box)[1]
        out = np.empty([part.stop - part.start for part in box], self.dtype)

        def put(index: Index) -> None:
            to, part = self._part(index, box)
            out[to] = part

        indices = itertools.product(*ranges)
        if self._pool is None:
            for index in indices:
                put(index)
        else:
            for _ in self._pool.map(put, indices):
                pass
        return out

    def forget(self) -> None:
        self._cache.clear()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        self._close()

    def _part(self, index: Index, box: Box) -> tuple[Box, np.ndarray]:
        """What chunk `index` has of `box`: where it lies in the box, and its values."""
        chunk = self._cache.get(index, self._read_chunk)
        to, of_chunk = [], []
        for at, size, part in zip(index, self.chunks, box, strict=True):
            begin = at * size
            start, stop = max(part.start, begin), min(part.stop, begin + size)
            to.append(slice(start - part.start, stop - part.start))
            of_chunk.append(slice(start - begin, stop - begin))
        return tuple(to), chunk[tuple(of_chunk)]

    def _read_chunk(self, index: Index) -> np.ndarray:
        chunk = self._fetch(
            tuple(
                slice(at * size, min((at + 1) * size, length))
                for at, size, length in zip(index, self.chunks, self.shape, strict=True)
            )
        )
        chunk.flags.writeable = False
        return chunk


def runs(shape: tuple[int, ...], itemsize: int, limit: int, fortran: bool = False) -> tuple[int, ...]:
    """The largest block that lies in one run, of at most `limit` bytes, where an array lies as in memory."""
    block, room = [1] * len(shape), max(limit // itemsize, 1)
    for axis in range(len(shape)) if fortran else reversed(range(len(shape))):
        block[axis] = min(shape[axis], room)
        if block[axis] < shape[axis]:
            break
        room //= block[axis]
    return tuple(block)


def whole_chunks(chunks: tuple[int, ...], shape: tuple[int, ...], itemsize: int, least: int) -> tuple[int, ...]:
    """`chunks`, or of small ones so many together that they are of `least` bytes."""
    grown = list(chunks)
    for axis in reversed(range(len(grown))):
        lacks = least // (prod(grown) * itemsize)
        if lacks > 1:
            most = -(-shape[axis] // chunks[axis])
            grown[axis] = chunks[axis] * min(lacks, most)
    return tuple(grown)
