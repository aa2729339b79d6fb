"""Cuts a slice out of an array: what is there, what pads it and fills it up, and the axes as the network has them.

Arrays are (C, *space); samples are (C, *sample), without the axes of size 1, and transposed where the grid says so.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rml_core.slicers.grid import Box, SliceGrid, SliceLocation

# The voxels of a box (C, *box), in the type that they are stored in.
Read = Callable[[Box], np.ndarray]
# What stands before the axes of space.
CHANNELS = (slice(None),)


def cut(read: Read, grid: SliceGrid, location: SliceLocation, out: np.ndarray) -> None:
    """Write the slice at `location` into `out` (C, *sample) of any type and layout; values are cast as NumPy does.

    Where nothing pads it that is a single strided copy, without Python's lock.
    """
    MODES[grid.padding_mode](read, grid, location, lying(out, grid))


def lying(sample: np.ndarray, grid: SliceGrid) -> np.ndarray:
    """A view of `sample` (C, *sample) with its axes as they lie in the array, (C, *padded sizes)."""
    if grid.transpose:
        sample = sample.swapaxes(1, 2)
    places = (slice(None), *(None if axis.dropped else slice(None) for axis in grid.axes))
    return sample[places]


def there(grid: SliceGrid, location: SliceLocation) -> Box:
    """Where the array's own voxels are among the padded sizes: neither padding nor fill."""
    return tuple(
        slice(axis.before, axis.before + part.stop - part.start)
        for axis, part in zip(grid.axes, location.box, strict=True)
    )


def kept(grid: SliceGrid, location: SliceLocation) -> Box:
    """Which voxels of the sample are the array's own, as a box of the sample."""
    box = there(grid, location)
    return tuple(box[axis] for axis in grid.kept_axes)


def reflected(places: np.ndarray, length: int) -> np.ndarray:
    """Where `places` lie on an axis of `length` that is reflected at its first and at its last voxel, again and
    again."""
    if length == 1:
        return np.zeros_like(places)
    period = 2 * (length - 1)
    folded = places % period
    return np.minimum(folded, period - folded)


# --- what pads and fills

# (the axis first, its core, the places to be written)
_Fill = Callable[[np.ndarray, slice, slice], None]


def _zeros(lying: np.ndarray, core: slice, pad: slice) -> None:
    lying[pad] = 0


def _edge(lying: np.ndarray, core: slice, pad: slice) -> None:
    lying[pad] = lying[core.start if pad.start < core.start else core.stop - 1]


def _reflect(lying: np.ndarray, core: slice, pad: slice) -> None:
    places = np.arange(pad.start, pad.stop) - core.start
    lying[pad] = lying[core.start + reflected(places, core.stop - core.start)]


def _of_its_own(fill: _Fill) -> Callable[[Read, SliceGrid, SliceLocation, np.ndarray], None]:
    """A padding that is made of the slice's own voxels, an axis after the other, as `np.pad` makes it."""

    def mode(read: Read, grid: SliceGrid, location: SliceLocation, whole: np.ndarray) -> None:
        cores = there(grid, location)
        np.copyto(whole[(*CHANNELS, *cores)], read(location.box), casting="unsafe")
        for number, (core, size) in enumerate(zip(cores, whole.shape[1:], strict=True)):
            if core.start == 0 and core.stop == size:
                continue
            done, left = [slice(None)] * (number + 1), cores[number + 1 :]
            lying = np.moveaxis(whole[(*CHANNELS, *done, *left)], number + 1, 0)
            for pad in (slice(0, core.start), slice(core.stop, size)):
                if pad.start < pad.stop:
                    fill(lying, core, pad)

    return mode


def _context(read: Read, grid: SliceGrid, location: SliceLocation, whole: np.ndarray) -> None:
    """Real neighbours where there are any; beyond the border the array is reflected."""
    box, turned = [], []
    for number, (axis, part) in enumerate(zip(grid.axes, location.box, strict=True), start=1):
        start = part.start - axis.before
        stop = start + axis.padded
        if start >= 0 and stop <= axis.length:
            box.append(slice(start, stop))
            continue
        places = reflected(np.arange(start, stop), axis.length)
        first = int(places.min())
        box.append(slice(first, int(places.max()) + 1))
        turned.append((number, places - first))
    voxels = read(tuple(box))
    for number, places in turned:
        voxels = voxels.take(places, axis=number)
    np.copyto(whole, voxels, casting="unsafe")


MODES: dict[str, Callable[[Read, SliceGrid, SliceLocation, np.ndarray], None]] = {
    "zeros": _of_its_own(_zeros),
    "edge": _of_its_own(_edge),
    "reflect": _of_its_own(_reflect),
    "context": _context,
}
