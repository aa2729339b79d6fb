"""Samples of every type behind URLs, in fsspec's memory."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

PLACE = "/test-of-arrays"
URL = f"memory:/{PLACE}"


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    files = fsspec.filesystem("memory")
    yield files
    files.rm(PLACE, recursive=True)


# How it is written, where, the type, the names of the samples
CASES = [
    ("npy", "in", "in", "numpy", ("x.npy", "y.npy")),
    ("npz", "a.npz", ".", "numpy", ("a.npz/x", "a.npz/y")),
    ("hdf5", "a.h5", "a.h5", "hdf5", ("a.h5/x", "a.h5/y")),
    ("hdf5", "a.h5", "a.h5:/y", "hdf5", ("a.h5/y",)),
    ("zarr2", "in/a.zarr", "in", "zarr", ("a.zarr/x", "a.zarr/y")),
    ("zarr3", "a.zarr", "a.zarr", "zarr", ("a.zarr/x", "a.zarr/y")),
    ("zarr3", "a.zarr", "a.zarr:/y", "zarr", ("a.zarr/y",)),
    ("idx", "train-images", ".", "mnist", ("00000", "00001")),
]


@pytest.mark.parametrize(("saver", "file", "path", "type_", "names"), CASES)
@pytest.mark.parametrize("preload", [True, False])
def test_what_is_there_is_read(work, memory, saver, file, path, type_, names, preload):
    arrays = {name: np.random.default_rng(i).integers(0, 9, (1, 4, 5), np.uint8) for i, name in enumerate("xy")}
    work.save(saver, f"local/{file}", arrays)
    for local in Path(work.folder / "local").rglob("*"):
        if local.is_file():
            packed = gzip.compress(local.read_bytes()) if saver == "idx" else local.read_bytes()
            memory.pipe_file(f"{PLACE}/{local.relative_to(work.folder / 'local')}", packed)
    keys = {"input_type": type_, "input_path": f"{URL}/{path}".removesuffix("/."), "preload": preload}
    assert work.survey(**keys).names == names
    (batch,) = work.batches(False, **keys)
    scale = np.float32(255 if type_ == "mnist" else 1)
    np.testing.assert_array_equal(batch.inputs, np.stack(list(arrays.values()))[-len(names) :] / scale)
