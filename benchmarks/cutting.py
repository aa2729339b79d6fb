"""Slices out of a volume of 2 GiB, float32 512 x 1024 x 1024, in the shuffled order of training.

Bricks: ours are the batches of a preloaded volume, without the threads that make them ahead; the baseline copies the
same boxes in the same order out of NumPy's map of the file, which is in the system's cache.

Planes, in all three orientations: the bytes that are read from storage for each byte that is used, in one epoch, of a
contiguous file and of one in chunks of 64³. The system is made to forget the contiguous file after each window of the
order, as it would do by itself where there is no more memory than for a window. Each plane across the last axis then
takes all pages of the file, and each of the four windows reads it whole. Linux only.
"""

from __future__ import annotations

import gc
import os
import re
import tempfile
import time
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from measure import Row, compare, main
from rml_core.config.section import parse
from rml_core.data.prepared import Prepared, prepare
from rml_core.data.section import Data
from rml_core.data.slice_order import WINDOW
from rml_core.data.slices import Slices
from rml_core.data.survey import survey

SHAPE, BRICK, CHUNK, BATCH = (512, 1024, 1024), 64, 64, 16
# Decoded chunks that are kept.
CACHE = 3 << 28
# ours / baseline where 0.85 of the baseline's rate is kept; bytes read for each that is used.
BRICKS, PLANES, LAST_AXIS = 1 / 0.85, 1.2, 4.2


def write(folder: Path, shape: tuple[int, int, int]) -> None:
    """`volume.npy`, and the same in chunks in `volume.h5`."""
    plane = np.random.default_rng(0).random(shape[1:], np.float32)
    mapped = np.lib.format.open_memmap(folder / "volume.npy", "w+", np.float32, shape)
    with h5py.File(folder / "volume.h5", "w") as file:
        chunked = file.create_dataset("volume", shape, np.float32, chunks=(CHUNK,) * 3)
        for start in range(0, shape[0], CHUNK):
            slab = np.stack([np.roll(plane, number, axis=1) for number in range(start, start + CHUNK)])
            mapped[start : start + CHUNK] = slab
            chunked[start : start + CHUNK] = slab
    mapped.flush()


def prepared(folder: Path, path: str, sizes: list[int], preload: bool) -> Prepared:
    keys: dict[str, Any] = {
        "input_type": "hdf5" if path.endswith(".h5") else "numpy",
        "input_path": path,
        "slicers": [{"sizes": sizes}],
        "batch_size": BATCH,
        "preload": preload,
    }
    data = parse(Data, keys, "data")
    found = survey(data, "training", folder)
    assert found is not None
    return prepare(found, data, folder / "prepared")


def bricks(slices: Slices, order: list[np.ndarray]) -> float:
    room = slices.room(order[0])
    assert room is not None
    began = time.perf_counter()
    for numbers in order:
        slices.fill(numbers, room.rows(slice(0, len(numbers))), seed=0, epoch=1, training=True)
    return time.perf_counter() - began


def copied(path: Path, slices: Slices, order: list[np.ndarray]) -> float:
    (grid,) = slices.prepared.grids
    mapped = np.load(path, mmap_mode="r")
    out = np.empty((BATCH, *grid.sample_shape), np.float32)
    boxes = [[grid.location(number).box for number in numbers.tolist()] for numbers in order]
    began = time.perf_counter()
    for batch in boxes:
        for row, box in enumerate(batch):
            np.copyto(out[row], mapped[box])
    return time.perf_counter() - began


def read_for_each_used(folder: Path, path: str, sizes: list[int]) -> float:
    """Bytes read from storage in one epoch, divided by the bytes of all slices."""
    of = prepared(folder, path, sizes, preload=False)
    order = list(Slices(of).parts(BATCH, 0, 1, True, True, 0))
    used = read = 0
    contiguous = path.endswith(".npy")
    step = max(WINDOW // (BATCH * prod(of.grids[0].sample_shape) * 4), 1) if contiguous else len(order)
    for first in range(0, len(order), step):
        # What maps the file lets go of it.
        gc.collect()
        drop(folder / path)
        slices, before = Slices(of, cache_bytes=CACHE), from_disk()
        for numbers in order[first : first + step]:
            room = slices.room(numbers)
            assert room is not None
            slices.fill(numbers, room, seed=0, epoch=1, training=True)
            used += room.inputs.nbytes
        read += from_disk() - before if contiguous else slices._inputs.bytes_read
        del slices
    return read / used


def drop(path: Path) -> None:
    """Let the system forget what it keeps of a file that nobody maps."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def from_disk() -> int:
    """Bytes that this process had the disks read."""
    found = re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def rows(rounds: int, quick: bool) -> list[Row]:
    shape = (64, 128, 128) if quick else SHAPE
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(folder, shape)
        slices = Slices(prepared(folder, "volume.npy", [BRICK] * 3, preload=True))
        order = list(slices.parts(BATCH, 0, 1, True, True, 0))
        ours = partial(bricks, slices, order)
        baseline = partial(copied, folder / "volume.npy", slices, order)
        made = [compare(f"cut, bricks of {BRICK}³ out of a file in cache", ours, baseline, BRICKS, rounds)]
        del slices, ours, baseline
        for path, kind, bounds in (
            ("volume.npy", "contiguous", (PLANES, PLANES, LAST_AXIS)),
            ("volume.h5", "chunked", (PLANES,) * 3),
        ):
            for axis, bound in enumerate(bounds):
                sizes = [1 if number == axis else size for number, size in enumerate(shape)]
                ratio = read_for_each_used(folder, path, sizes)
                made.append(Row(f"bytes read / used, planes across axis {axis}, {kind}", ratio, None, bound, "x"))
        return made


if __name__ == "__main__":
    main(rows)
