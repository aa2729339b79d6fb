"""Dask's side: `map_overlap` over blocks of an HDF5 dataset, with the identity, into an HDF5 file.

`windows_dask.py WARM_UP VOLUME OUTPUT WINDOW`. Blocks of half a window with a quarter of one around them: as much
overlap as windows that overlap by half, and no blending.
"""

from __future__ import annotations

import sys

import dask.array as da
import h5py
import numpy as np
from held import measured, tell


def same(block: np.ndarray) -> np.ndarray:
    return block


def run(source: str, output: str, window: int) -> None:
    with h5py.File(source) as file, h5py.File(output, "w") as copy:
        volume = da.from_array(file["volume"], chunks=window)
        found = volume.map_overlap(same, depth=window // 4, boundary="none", dtype=volume.dtype)
        written = copy.create_dataset("windows", volume.shape, volume.dtype)
        da.store(found, written)


if __name__ == "__main__":
    warm_up, source, output, window = sys.argv[1:]
    run(warm_up, output, int(window))
    tell(measured(lambda: run(source, output, int(window))))
