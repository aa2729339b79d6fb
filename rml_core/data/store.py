"""Decoded samples on disk: one array where they are all alike, else chunks with an index.

`Alike` is one `.npy` (N, H, W, C), each sample written at its own place. `Unlike` is a flat file for each chunk of
samples, and `index.npy` with a row a sample: chunk, offset in bytes, H, W, C, place of the type in `TYPES`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TYPES = tuple(np.dtype(name) for name in ("uint8", "uint16", "float32", "int8", "int16", "int32", "float64"))

Index = list[tuple[int, ...]]


class NotAlike(Exception):
    """A sample has another shape or type than the array has room for."""


@dataclass(frozen=True)
class Alike:
    """A place for samples of one shape (H, W, C) and type, at `path`; the data begin at `offset`."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def create(cls, folder: Path, name: str, count: int, first: np.ndarray) -> Alike:
        """Room for `count` samples like `first`; the disk's blocks are reserved now, so that a full disk is an error
        here. Raises `OSError`."""
        path = folder / f"{name}.npy"
        shape, dtype = (count, *first.shape), np.lib.format.dtype_to_descr(first.dtype)
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
            file.flush()
            offset = file.tell()
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, offset + count * first.nbytes)
            else:
                file.truncate(offset + count * first.nbytes)
        return cls(str(path), offset, first.shape, str(dtype))

    def write(self, start: int, samples: Sequence[np.ndarray]) -> Index:
        """Raises `NotAlike`, `OSError`."""
        if any(sample.shape != self.shape or sample.dtype != np.dtype(self.dtype) for sample in samples):
            raise NotAlike
        data = np.stack(samples).tobytes()
        at = self.offset + start * (len(data) // len(samples))
        file = os.open(self.path, os.O_WRONLY)
        try:
            while data:
                written = os.pwrite(file, data, at)
                data, at = data[written:], at + written
        finally:
            os.close(file)
        return []


@dataclass(frozen=True)
class Unlike:
    """A place for samples of any shapes and types: files `path` + `-<chunk>.bin`."""

    path: str

    @classmethod
    def create(cls, folder: Path, name: str) -> Unlike:
        return cls(str(folder / name))

    def write(self, start: int, samples: Sequence[np.ndarray]) -> Index:
        """Raises `OSError`."""
        rows, at = [], 0
        with open(f"{self.path}-{start}.bin", "wb") as file:
            for sample in samples:
                rows.append((start, at, *sample.shape, TYPES.index(sample.dtype)))
                file.write(np.ascontiguousarray(sample).data)
                at += sample.nbytes
        return rows

    def finish(self, index: Index) -> None:
        np.save(f"{self.path}.index.npy", np.asarray(index, np.int64).reshape(-1, 6))


class Reader:
    """The samples of a place, mapped: `reader[i]` is (H, W, C). `alike`: all of them as (N, H, W, C), or None."""

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
        chunk, at, height, width, channels, kind = (int(number) for number in self._index[i])
        dtype = TYPES[kind]
        data = self._chunks[chunk][at : at + height * width * channels * dtype.itemsize]
        return np.asarray(data).view(dtype).reshape(height, width, channels)
