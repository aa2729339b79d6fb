"""1 GiB of 64³ blocks into one HDF5 file from two processes, against h5py and against one raw sequential write.

Each side makes its file anew, and is timed until the last block is written; nobody waits for the disk.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from measure import Row, in_turns, main
from rml_core.assembly.layout import Assembly, Layout, Outfile
from rml_core.slicers.grid import Axis, SliceGrid

SIZE, SHAPE, WRITERS = 64, (512, 512, 1024), 2
OF_H5PY, OF_RAW = 1 / 5, 1 / 0.55
CHUNK = 16 << 20

Box = tuple[slice, ...]


def boxes(shape: tuple[int, ...], size: int) -> Iterator[Box]:
    starts = itertools.product(*(range(0, length, size) for length in shape))
    return (tuple(slice(at, at + size) for at in start) for start in starts)


def ready(size: int) -> np.ndarray[Any, Any]:
    """What every block is written from: (1, size, size, size) float32."""
    return np.random.default_rng(0).standard_normal((1, size, size, size), dtype=np.float32)


def writer(turn: int, writers: int, shape: tuple[int, ...], size: int, layouts: Any, barrier: Any) -> None:
    """One of the processes: for each layout that comes, its share of the blocks, a layer of them a turn."""
    block = ready(size)
    while (layout := layouts.get()) is not None:
        barrier.wait()
        for box in boxes(shape, size):
            if box[0].start // size % writers == turn:
                layout.write(0, box, block, mapped=True)
        layout.release()
        barrier.wait()


class Writers:
    """The processes, which live as long as they are needed."""

    def __init__(self, count: int, shape: tuple[int, ...], size: int):
        context = multiprocessing.get_context("spawn")
        self.count, self.barrier = count, context.Barrier(count + 1)
        self._layouts = [context.Queue() for _ in range(count)]
        self._processes = [
            context.Process(target=writer, args=(turn, count, shape, size, self._layouts[turn], self.barrier))
            for turn in range(count)
        ]
        for process in self._processes:
            process.start()

    def write(self, layout: Layout) -> float:
        for layouts in self._layouts:
            layouts.put(layout)
        self.barrier.wait()
        began = time.perf_counter()
        self.barrier.wait()
        return time.perf_counter() - began

    def close(self) -> None:
        for layouts in self._layouts:
            layouts.put(None)
        for process in self._processes:
            process.join()


def ours(folder: Path, shape: tuple[int, ...], size: int, writers: Writers) -> dict[str, float]:
    grid = SliceGrid("windows", tuple(Axis(length, size, size) for length in shape))
    outfile = Outfile(Assembly(folder / "ours.h5", (grid,), 1))
    try:
        return {"seconds": writers.write(outfile.layout)}
    finally:
        outfile.discard()


def with_h5py(folder: Path, shape: tuple[int, ...], size: int) -> dict[str, float]:
    path, block = folder / "h5py.h5", ready(size)
    began = time.perf_counter()
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("windows", (1, *shape), np.float32)
        for box in boxes(shape, size):
            dataset[(slice(None), *box)] = block
    seconds = time.perf_counter() - began
    path.unlink()
    return {"seconds": seconds}


def raw(folder: Path, shape: tuple[int, ...]) -> dict[str, float]:
    path, chunk = folder / "raw", memoryview(bytearray(os.urandom(CHUNK)))
    left = int(np.prod(shape)) * 4
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        while left:
            left -= file.write(chunk[:left]) or 0
    seconds = time.perf_counter() - began
    path.unlink()
    return {"seconds": seconds}


def rows(rounds: int, quick: bool) -> list[Row]:
    shape, size = ((32, 32, 64), 16) if quick else (SHAPE, SIZE)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        writers = Writers(WRITERS, shape, size)
        try:
            found = in_turns(
                {
                    "ours": partial(ours, folder, shape, size, writers),
                    "h5py": partial(with_h5py, folder, shape, size),
                    "raw": partial(raw, folder, shape),
                },
                rounds,
            )
        finally:
            writers.close()
    what = f"{int(np.prod(shape)) * 4 >> 20} MiB of {size}³ blocks, {WRITERS} processes"
    times = {name: each["seconds"] for name, each in found.items()}
    return [
        Row(f"{what}, of h5py", times["ours"], times["h5py"], OF_H5PY),
        Row(f"{what}, of a raw write", times["ours"], times["raw"], OF_RAW),
    ]


if __name__ == "__main__":
    main(rows)
