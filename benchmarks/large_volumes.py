"""Volumes that do not fit in memory: what anonymous memory a run over them takes, which `RML_MEMORY` limits.

1024³ voxels in windows of 64³ that overlap by half. And 4096 x 4096 x 512 bytes in a sparse file, of which tiles of
16 x 16 x 512 are cut, 256 side by side in each of 8 rows, with gaps between the rows; the classes of two channels are
assembled. A layer of either takes as much as the limit, or more. The limit is for all but the network and its batch,
whose few MB are in the figures too.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from measure import Row, main
from volumes import NETWORKS, WINDOW, one_layer, prediction, run_file, side, volume

SIZE, LIMIT_MB = 1024, 256
SPARSE, TILE = (4096, 4096, 512), 16


def sparse(path: Path, shape: tuple[int, ...]) -> Path:
    """A contiguous dataset of zeros, bytes, that takes no room on the disk."""
    with h5py.File(path, "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, b"volume", h5py.h5t.STD_U8LE, h5py.h5s.create_simple(shape), made)
    return path


def tiles(path: Path, source: Path, shape: tuple[int, ...], tile: int) -> Path:
    """A run that takes 8 rows of tiles through one convolution of a voxel, to two classes."""
    sizes, strides = [tile, tile, shape[2]], [shape[0] // 8, tile, shape[2]]
    convolution: dict[str, Any] = {"name": "classes", "filters": 2, "kernel_size": 1, "activation": "softmax"}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "input", "batch_input_shape": [None, *sizes, 1]}},
        {"class_name": "Conv3D", "config": convolution},
    ]
    data = {
        "type": "hdf5",
        "test_input_path": str(source),
        "test_batch_size": 4,
        "slicers": [{"name": "tiles", "sizes": sizes, "strides": strides}],
        "hdf5_outfile": str(prediction(path)),
        "hdf5_output": "argmax",
    }
    path.write_text(json.dumps({"neural_network": {"data": data, "layers": layers}}))
    return path


@contextmanager
def limited(megabytes: int) -> Iterator[None]:
    """With `RML_MEMORY` for the processes that are started."""
    before = os.environ.get("RML_MEMORY")
    os.environ["RML_MEMORY"] = f"{megabytes}MB"
    try:
        yield
    finally:
        if before is None:
            del os.environ["RML_MEMORY"]
        else:
            os.environ["RML_MEMORY"] = before


def rows(rounds: int, quick: bool) -> list[Row]:
    """Memory is measured once: it does not vary as time does."""
    size, window, shape, tile = (48, 8, (64, 64, 16), 4) if quick else (SIZE, WINDOW, SPARSE, TILE)
    measured = []
    with tempfile.TemporaryDirectory() as temporary, limited(LIMIT_MB):
        folder = Path(temporary)
        small, identity = volume(folder / "small.h5", 2 * window), one_layer(NETWORKS["identity"], window)
        warm_up = run_file(folder / "small.json", small, identity, 2 * window, window)
        large = volume(folder / "volume.h5", size)
        path = run_file(folder / "large.json", large, identity, size, window)
        figures = side(sys.executable, "run_file.py", warm_up, path)
        measured.append(Row(f"{size}³ in {window}³ windows", figures["MB"], None, LIMIT_MB, "MB"))
        large.unlink()
        prediction(path).unlink()

        small_tiles = tiles(folder / "tiles.json", sparse(folder / "tiles_small.h5", (64, 64, 16)), (64, 64, 16), 4)
        path = tiles(folder / "sparse.json", sparse(folder / "sparse.h5", shape), shape, tile)
        figures = side(sys.executable, "run_file.py", small_tiles, path)
        measured.append(Row(f"sparse {' x '.join(map(str, shape))}", figures["MB"], None, LIMIT_MB, "MB"))
    return measured


if __name__ == "__main__":
    main(rows)
