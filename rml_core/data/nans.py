"""How many nan values a volume has that is read slice by slice: counted once a voxel, while it is read anyway."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from rml_core.slicers.extract import Read
from rml_core.slicers.grid import Axis, Box, SliceGrid, SliceLocation


def counted(item: object, count: int) -> str:
    """What is said of a volume that has nan values, whenever they were counted."""
    return f"{item} has {count} nan {'value' if count == 1 else 'values'}"


class Nans:
    """The nan values in the slices of `grids`, counted in the first pass that is whole. `item`: where they lie.

    `looking`: a pass is under way that counts. A voxel counts where its slice is the last that begins before it, of the
    first grid that has it: slices overlap, within a grid and with those of others. Safe to use from several threads.
    """

    def __init__(self, grids: Sequence[SliceGrid], item: str) -> None:
        self._grids, self._item = list(grids), item
        self.looking = False
        self._count, self._done, self._lock = 0, False, threading.Lock()

    def begin(self, whole: bool) -> None:
        self.looking, self._count = whole and not self._done, 0

    def end(self) -> list[str]:
        """What is to be said after a pass."""
        if not self.looking:
            return []
        self.looking, self._done = False, True
        return [counted(self._item, self._count)] if self._count else []

    def look(self, sample: np.ndarray, grid: SliceGrid, location: SliceLocation, read: Read) -> None:
        """Count those of the slice at `location`, that `sample` was made of."""
        # The least of some numbers is nan where one of them is, and is found in one pass without any memory.
        if np.isnan(sample.min()):
            self._count_own(grid, location, read)

    def _count_own(self, grid: SliceGrid, location: SliceLocation, read: Read) -> None:
        own = _own(grid, location)
        voxels = np.isnan(read(own))
        for other in self._grids[: self._grids.index(grid)]:
            there: list[Any] = [_covered(axis, part) for axis, part in zip(other.axes, own, strict=True)]
            voxels[(slice(None), *np.ix_(*there))] = False
        with self._lock:
            self._count += int(np.count_nonzero(voxels))

    def look_along(self, box: np.ndarray, grid: SliceGrid, locations: list[SliceLocation], read: Read) -> None:
        """Count those of a line of slices, `box` (C, *space) with their padding: looks at what no other line has."""
        own = zip(grid.axes, _own(grid, locations[0])[:-1], strict=False)
        parts: list[Any] = [slice(axis.before, axis.before + part.stop - part.start) for axis, part in own]
        if np.isnan(box[(slice(None), *parts)].min()):
            for location in locations:
                self._count_own(grid, location, read)


def _own(grid: SliceGrid, location: SliceLocation) -> Box:
    """Up to where the next slice along each axis begins."""
    return tuple(
        slice(part.start, min(part.stop, axis.start(place + 1)) if place + 1 < axis.count else part.stop)
        for axis, place, part in zip(grid.axes, location.place, location.box, strict=True)
    )


def _covered(axis: Axis, part: slice) -> np.ndarray:
    """Which voxels of `part` are in a slice, along one axis."""
    return np.array([len(axis.covering(voxel)) > 0 for voxel in range(part.start, part.stop)], bool)
