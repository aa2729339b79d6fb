"""Slices beside each other along the last axis, cut as the one box that they lie in.

Where they overlap, each is a view of the box: what they share is read, converted and held once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rml_core.slicers.grid import Axis, SliceGrid, SliceLocation


def ascending(grid: SliceGrid, numbers: np.ndarray) -> np.ndarray:
    """`numbers` in ascending order where they are a whole line of slices, else as they are."""
    along = grid.counts[-1]
    if len(numbers) == along and numbers.max() - numbers.min() == along - 1:
        return np.sort(numbers)
    return numbers


def is_line(grid: SliceGrid, numbers: np.ndarray) -> bool:
    """Whether the slices `numbers` follow each other on a line, overlap, and are no more than parts of their box."""
    last, count = grid.axes[-1], len(numbers)
    if count < 2 or grid.transpose or last.dropped or not last.overlaps:
        return False
    if numbers[0] // last.count != numbers[-1] // last.count or not (np.diff(numbers) == 1).all():
        return False
    # A slice that is padded with what it has itself is not what lies there.
    if grid.padding_mode == "context":
        return True
    filled = last.start(last.count - 1) + last.size > last.length
    return not last.before and not last.after and not (filled and grid.padding_mode == "reflect")


def box_of(grid: SliceGrid, numbers: np.ndarray) -> tuple[SliceGrid, SliceLocation]:
    """The box that the line `numbers` lies in, as a slice of a grid of its own."""
    first, last = grid.location(int(numbers[0])), grid.location(int(numbers[-1]))
    along = grid.axes[-1]
    size = (len(numbers) - 1) * along.stride + along.size
    wide = Axis(along.length, size, size, along.before, along.after, along.discard_remainders)
    parts = slice(first.box[-1].start, last.box[-1].stop)
    return (
        replace(grid, axes=(*grid.axes[:-1], wide)),
        SliceLocation(first.place, (*first.box[:-1], parts)),
    )


def views(box: np.ndarray, along: Axis, count: int) -> np.ndarray:
    """The `count` slices of a held `box`, (count, *held sample); neighbours share memory."""
    axis = _along(box)
    shape, step = list(box.shape), box.strides[axis] * along.stride
    shape[axis] = along.padded
    return np.lib.stride_tricks.as_strided(box, (count, *shape), (step, *box.strides))


def box_under(samples: np.ndarray, along: Axis) -> np.ndarray:
    """The box that `views` were made of."""
    shape: list[Any] = list(samples.shape[1:])
    shape[_along(samples[0])] += (len(samples) - 1) * along.stride
    return np.lib.stride_tricks.as_strided(samples, shape, samples.strides[1:])


def _along(held: np.ndarray) -> int:
    """The last axis of space: held samples with two of them have their channels last."""
    return 1 if held.ndim == 3 else held.ndim - 1
