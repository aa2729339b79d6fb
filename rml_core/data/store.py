"""Samples on disk, as they are held: one array where they are all alike, else chunks with an index.

`Alike` is one `.npy` (N, ...), each sample written at its own place. `Unlike` is a flat file for each chunk of
samples, and `index.npy` with a row a sample: chunk, offset in bytes, place of the type in `TYPES`, rank, and the shape,
filled up with 0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TYPES = tuple(
    np.dtype(name)
    for name in (
        *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "float32", "float64"),
    )
)
MOST_AXES = 4

Index = list[tuple[int, ...]]
Put = Callable[[np.ndarray], None]


class NotAlike(Exception):
    """A sample has another shape or type than the array has room for."""


@dataclass(frozen=True)
class Single:
    """A place for one array of `shape` in the `.npy` at `path`; the numbers begin at `offset`."""

    path: str
    offset: int
    shape: tuple[int, ...]

    @classmethod
    def create(cls, folder: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Single:
        """The disk's blocks are reserved now, so that a full disk is an error here. Raises `OSError`."""
        path = folder / f"{name}.npy"
        descr = np.lib.format.dtype_to_descr(dtype)
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
            file.flush()
            offset = file.tell()
            size = offset + math.prod(shape) * dtype.itemsize
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        return cls(str(path), offset, shape)

    def write(self, file: int, box: tuple[slice, ...], values: np.ndarray) -> None:
        """Put `values` in their `box`, by the open `file`, in as few pieces as there are runs. Raises `OSError`."""
        sizes, itemsize = values.shape, values.itemsize
        inner = len(sizes) - 1
        while inner > 0 and sizes[inner] == self.shape[inner]:
            inner -= 1
        strides = [math.prod(self.shape[axis + 1 :]) * itemsize for axis in range(len(sizes))]
        start = self.offset + sum(part.start * stride for part, stride in zip(box, strides, strict=True))
        for outer in np.ndindex(sizes[:inner]):
            at = start + sum(place * stride for place, stride in zip(outer, strides, strict=False))
            _write(file, values[outer], at)


def _write(file: int, values: np.ndarray, at: int) -> None:
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    while data:
        written = os.pwrite(file, data, at)
        data, at = data[written:], at + written


@dataclass(frozen=True)
class Alike:
    """A place for samples of one shape and type, at `path`; the data begin at `offset`."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def create(cls, folder: Path, name: str, count: int, first: np.ndarray) -> Alike:
        """Single for `count` samples like `first`. Raises `OSError`."""
        room = Single.create(folder, name, (count, *first.shape), first.dtype)
        return cls(room.path, room.offset, first.shape, str(np.lib.format.dtype_to_descr(first.dtype)))

    @contextmanager
    def writing(self, start: int, index: Index) -> Iterator[Put]:
        """Gives what puts samples at `start` and behind, one after the other. Raises `NotAlike`, `OSError`."""
        file = os.open(self.path, os.O_WRONLY)
        number = start

        def put(sample: np.ndarray) -> None:
            nonlocal number
            if sample.shape != self.shape or sample.dtype != np.dtype(self.dtype):
                raise NotAlike
            _write(file, sample, self.offset + number * sample.nbytes)
            number += 1

        try:
            yield put
        finally:
            os.close(file)


@dataclass(frozen=True)
class Unlike:
    """A place for samples of any shapes and types: files `path` + `-<chunk>.bin`."""

    path: str

    @classmethod
    def create(cls, folder: Path, name: str) -> Unlike:
        return cls(str(folder / name))

    @contextmanager
    def writing(self, start: int, index: Index) -> Iterator[Put]:
        """Gives what puts samples into the chunk `start`, and their rows into `index`. Raises `OSError`."""
        with open(f"{self.path}-{start}.bin", "wb") as file:

            def put(sample: np.ndarray) -> None:
                shape = (*sample.shape, *[0] * (MOST_AXES - sample.ndim))
                index.append((start, file.tell(), TYPES.index(sample.dtype), sample.ndim, *shape))
                file.write(np.ascontiguousarray(sample).data)

            yield put

    def finish(self, index: Index) -> None:
        np.save(f"{self.path}.index.npy", np.asarray(index, np.int64).reshape(-1, 4 + MOST_AXES))


class Reader:
    """The samples of a place, mapped: `reader[i]` is one, as it is held. `alike`: all of them as (N, ...), or None."""

    def __init__(self, folder: Path, name: str) -> None:
        self.alike: np.ndarray | None = None
        if (folder / f"{name}.npy").exists():
            self.alike = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
            return
        self._index = np.load(folder / f"{name}.index.npy")
        self._chunks = {
            int(chunk): np.memmap(folder / f"{name}-{chunk}.bin", np.uint8, "r")
            for chunk in np.unique(self._index[:, 0])
        }

    def __getitem__(self, i: int) -> np.ndarray:
        if self.alike is not None:
            return self.alike[i]
        chunk, at, kind, rank, *sizes = (int(number) for number in self._index[i])
        dtype, shape = TYPES[kind], sizes[:rank]
        data = self._chunks[chunk][at : at + math.prod(shape) * dtype.itemsize]
        return np.asarray(data).view(dtype).reshape(shape)
