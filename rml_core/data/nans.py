"""How many nan values a volume has that is read slice by slice: counted once a voxel, while it is read anyway."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from rml_core.slicers.extract import Read
from rml_core.slicers.grid import Axis, Box, SliceGrid, SliceLocation


class Nans:
    """The nan values in the slices of `grids`, counted in the first pass that is whole. `item`: where they lie.

    `looking`: a pass is under way that counts; what is to be said after it is in `said`. A voxel counts where its slice
    is the first that has it: slices overlap, within a grid and with those of others. Safe to use from several threads.
    """

    def __init__(self, grids: Sequence[SliceGrid], item: str) -> None:
        self._grids, self._item = list(grids), item
        self.looking, self.said = False, list[str]()
        self._count, self._done, self._lock = 0, False, threading.Lock()

    def begin(self, whole: bool) -> None:
        self.looking, self._count = whole and not self._done, 0

    def end(self) -> None:
        """A pass is through."""
        if self.looking:
            self.looking, self._done = False, True
            if self._count:
                self.said.append(f"{self._item} has {self._count} nan values")

    def look(self, sample: np.ndarray, grid: SliceGrid, location: SliceLocation, read: Read) -> None:
        """Count those of the slice at `location`, that `sample` was made of."""
        # The least of some numbers is nan where one of them is, and is found in one pass without any memory.
        if not np.isnan(sample.min()):
            return
        own = _own(grid, location)
        voxels = np.isnan(read(own))
        for other in self._grids[: self._grids.index(grid)]:
            there: list[Any] = [_covered(axis, part) for axis, part in zip(other.axes, own, strict=True)]
            voxels[(slice(None), *np.ix_(*there))] = False
        with self._lock:
            self._count += int(np.count_nonzero(voxels))


def _own(grid: SliceGrid, location: SliceLocation) -> Box:
    """Up to where the next slice along each axis begins."""
    return tuple(
        slice(part.start, min(part.stop, axis.start(place + 1)) if place + 1 < axis.count else part.stop)
        for axis, place, part in zip(grid.axes, location.place, location.box, strict=True)
    )


def _covered(axis: Axis, part: slice) -> np.ndarray:
    """Which voxels of `part` are in a slice, along one axis."""
    return np.array([len(axis.covering(voxel)) > 0 for voxel in range(part.start, part.stop)], bool)
