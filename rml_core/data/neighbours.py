"""Slices that follow each other along an axis, read at once where their storage is the same.

A plane that is thin along the last axis of a file is one number here and one there: its neighbours lie in the same
cache lines, pages and chunks. Sixteen of them cost what one does.
"""

from __future__ import annotations

from math import prod

import numpy as np

from rml_core.data.volumes import Volume
from rml_core.slicers.extract import Read
from rml_core.slicers.grid import Box, SliceGrid

# What is read at once takes so many bytes at most, in each thread and beside the batch.
MOST_BYTES = 1 << 26
# Neighbours whose runs in memory are shorter lie in the same cache lines.
SHORT_RUN = 256


def read_of(volume: Volume, grid: SliceGrid, numbers: np.ndarray, most: int = MOST_BYTES) -> Read:
    """What reads the slices `numbers` of `volume`, in one thread: their common box when the first is asked for, where
    that saves anything and takes `most` bytes."""
    found = _common(grid, numbers)
    if found is None:
        return volume.read
    along, common = found
    taken = volume.shape[0] * prod(part.stop - part.start for part in common) * volume.dtype.itemsize
    if taken > most or not _saves(volume, grid, along):
        return volume.read
    voxels: np.ndarray | None = None

    def read(box: Box) -> np.ndarray:
        nonlocal voxels
        parts = []
        for part, whole in zip(box, common, strict=True):
            if part.start < whole.start or part.stop > whole.stop:
                return volume.read(box)
            parts.append(slice(part.start - whole.start, part.stop - whole.start))
        if voxels is None:
            # A copy of what is mapped, made in the order of the file.
            voxels = np.array(volume.read(common))
        return voxels[(slice(None), *parts)]

    return read


def _common(grid: SliceGrid, numbers: np.ndarray) -> tuple[int, Box] | None:
    """The axis along which the slices follow each other, and the box they are in; None: they do not."""
    if len(numbers) < 2 or not (np.diff(numbers) == 1).all():
        return None
    first, last = grid.location(int(numbers[0])), grid.location(int(numbers[-1]))
    along = [axis for axis, ends in enumerate(zip(first.place, last.place, strict=True)) if ends[0] != ends[1]]
    if len(along) != 1:
        return None
    context = grid.padding_mode == "context"
    parts = []
    for axis, start, stop in zip(grid.axes, first.box, last.box, strict=True):
        before, after = (axis.before, axis.after) if context else (0, 0)
        parts.append(slice(max(start.start - before, 0), min(stop.stop + after, axis.length)))
    return along[0], tuple(parts)


def _saves(volume: Volume, grid: SliceGrid, along: int) -> bool:
    """Whether neighbours along that axis share chunks, or cache lines."""
    axis = grid.axes[along]
    if volume.chunks is not None:
        return axis.stride < volume.chunks[along + 1]
    inner = 0 if volume.fortran else len(grid.axes) - 1
    return along == inner and axis.stride * volume.dtype.itemsize < SHORT_RUN
