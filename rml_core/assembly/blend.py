"""How predictions of overlapping slices become one: weighted sums, in an order that the geometry alone decides.

The weight of a slice's voxel is a product over the axes: 1, or a Gaussian around the slice's centre. The sum of the
weights of a voxel of the prediction is therefore one, too, and is never gathered. Where slices do not overlap along an
axis, its weights are 1, and without any overlap predictions are copied bit by bit.

Gaussian: sigma is an eighth of the size, as Isensee et al., doi:10.1038/s41592-020-01008-z, and MONAI's
`compute_importance_map` have it; no weight is raised to a least one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch

from rml_core.assembly.regions import Regions, common, within
from rml_core.slicers.grid import Axis, Box, SliceGrid

Array = np.ndarray[Any, Any]

# The share of its size that the Gaussian's sigma is.
SIGMA = 0.125
# Added to what is not there yet; unlike 0 it leaves -0.0 as it is.
NOTHING = np.float32(-0.0)


def ones(size: int) -> Array:
    return np.ones(size)


def gaussian(size: int) -> Array:
    """Weights (size,), the largest 1 or near it."""
    offsets = np.arange(size) - (size - 1) / 2
    return np.exp(-0.5 * (offsets / (SIGMA * size)) ** 2)


BLENDS = {"mean": ones, "gaussian": gaussian}


class Batch(NamedTuple):
    """Predictions (N, channels, *sample), those of the slices `numbers` in their `rows`: in the order of
    `grid.in_order`, without a gap."""

    numbers: Array
    rows: Array
    outputs: Array

    @classmethod
    def of(cls, regions: Regions, start: int, numbers: Array, outputs: Array) -> Batch:
        """The slices at the N positions from `start` on, whose numbers come in any order. Raises `ValueError`: they
        are others."""
        positions: Any = np.arange(start, start + len(numbers))
        in_order: Any = regions.grid.in_order(positions, regions.axis)
        rows = np.arange(len(numbers))
        if not np.array_equal(in_order, numbers):
            sorting = np.argsort(numbers)
            places = np.searchsorted(numbers, in_order, sorter=sorting)
            rows = sorting[np.minimum(places, len(sorting) - 1)]
            if not np.array_equal(numbers[rows], in_order):
                raise ValueError(f"slices {numbers.tolist()} are not those at {start} to {start + len(numbers)}")
        return cls(in_order, rows, outputs)

    def part(self, start: int, stop: int) -> Batch:
        return Batch(self.numbers[start:stop], self.rows[start:stop], self.outputs)


@dataclass(frozen=True)
class Piece:
    """Predictions of slices that do not overlap, `cores` (N, channels, *first): those of the box `first`, and of the
    boxes `step` voxels further `along` an axis each."""

    along: int
    first: Box
    step: int
    cores: Array

    @property
    def box(self) -> Box:
        """Of all of them."""
        part = self.first[self.along]
        last = slice(part.start, part.stop + (len(self.cores) - 1) * self.step)
        return (*self.first[: self.along], last, *self.first[self.along + 1 :])

    def singles(self) -> Iterator[Piece]:
        for number in range(len(self.cores)):
            part, ahead = self.first[self.along], number * self.step
            moved = slice(part.start + ahead, part.stop + ahead)
            box = (*self.first[: self.along], moved, *self.first[self.along + 1 :])
            yield Piece(self.along, box, self.step, self.cores[number : number + 1])


@dataclass(frozen=True)
class Blend:
    """Predictions (channels, *slice) of `regions.grid` to regions of the whole. `name`: a key of `BLENDS`."""

    regions: Regions
    name: str

    @property
    def grid(self) -> SliceGrid:
        return self.regions.grid

    @cached_property
    def overlaps(self) -> bool:
        return self.grid.overlaps

    @cached_property
    def weights(self) -> Array | None:
        """Of the voxels of a slice, float32, (size or 1 along each axis); None: all are 1."""
        axes = [_weights(axis, self.name) if axis.overlaps else ones(1) for axis in self.grid.axes]
        if self.name == "mean" or not self.overlaps:
            return None
        return np.asarray(_product(axes), np.float32)

    @cached_property
    def along(self) -> int:
        """What is beside each other along this axis comes in one `Piece`."""
        return self.regions.along

    def pieces(self, batch: Batch) -> Iterator[Piece]:
        """The predictions of a batch, in the order in which they are added; all are views."""
        grid, axis = self.grid, self.grid.axes[self.along]
        numbers, rows, outputs = batch.numbers.tolist(), batch.rows.tolist(), batch.outputs
        step = prod(grid.counts[self.along + 1 :]) * axis.apart
        at = 0
        while at < len(numbers):
            location = grid.location(numbers[at])
            whole = location.box[self.along].stop - location.box[self.along].start == axis.size
            count, place = 1, location.place[self.along]
            # Slices of a line that do not overlap, and whose rows are evenly spaced, are one view.
            while whole and self.along != self.regions.axis and at + count < len(numbers):
                place += axis.apart
                following = numbers[at + count] - numbers[at + count - 1] == step and place < axis.count
                if not following or axis.start(place) + axis.size > axis.length:
                    break
                if rows[at + count] - rows[at + count - 1] != rows[at + 1] - rows[at]:
                    break
                count += 1
            stride = rows[at + 1] - rows[at] if count > 1 else 1
            first, last = rows[at], rows[at + count - 1]
            if stride < 0:
                first, last, stride, count = first, first, 1, 1
            cores = self._cores(outputs[first : last + 1 : stride], location.box)
            yield Piece(self.along, location.box, axis.apart * axis.stride, cores)
            at += count

    def _cores(self, outputs: Array, box: Box) -> Array:
        """The part of predictions (N, channels, *sample) that is in the array, as (N, channels, *box), a view."""
        grid = self.grid
        if grid.transpose:
            outputs = outputs.swapaxes(-1, -2)
        cut: list[Any] = [slice(None), slice(None)]
        for axis, part in zip(grid.axes, box, strict=True):
            cut.append(None if axis.dropped else slice(axis.before, axis.before + part.stop - part.start))
        return outputs[tuple(cut)]

    def core(self, output: Array, box: Box) -> Array:
        """Of one prediction (channels, *sample), as (channels, *box)."""
        return self._cores(output[None], box)[0]

    def start(self, region: Array) -> None:
        """Make room for sums (channels, *region)."""
        if self.overlaps:
            region.fill(NOTHING)
        elif self.grid.gaps:
            region.fill(np.nan)

    def add(self, region: Array, at: Box, piece: Piece, scratch: Array) -> None:
        """Add a piece to the sums (channels, *region) of the region `at`. `scratch`: a vector of float32 as long as
        the piece."""
        axis = piece.along
        span, whole = piece.box[axis], at[axis]
        if len(piece.cores) > 1 and (span.start < whole.start or span.stop > whole.stop):
            for single in piece.singles():
                if single.box[axis].start < whole.stop and single.box[axis].stop > whole.start:
                    self.add(region, at, single, scratch)
            return
        first = piece.first
        both = common(at, first)
        inner = within(both, first)
        place = _repeated(region, within(both, at), axis, len(piece.cores), piece.step)
        part = piece.cores[(slice(None), slice(None), *inner)]
        if not self.overlaps:
            np.copyto(place, part)
            return
        if self.weights is not None:
            weights = self.weights[
                tuple(cut if size > 1 else slice(None) for cut, size in zip(inner, self.weights.shape, strict=True))
            ]
            part = np.multiply(part, weights, out=scratch[: part.size].reshape(part.shape))
        # NumPy takes twice the time for short rows.
        torch.from_numpy(place).add_(torch.from_numpy(part))

    def finish(self, region: Array, at: Box) -> None:
        """Make means of sums."""
        if not self.overlaps:
            return
        first, *others = (
            scale(axis, self.name, part.start, part.stop) for axis, part in zip(self.grid.axes, at, strict=True)
        )
        if not others:
            np.multiply(region, first.astype(np.float32), out=region)
            return
        plane = _product(others)
        last, scaled = 0.0, np.empty(plane.shape, np.float32)
        for row, factor in enumerate(first):
            if factor != last:
                np.multiply(plane, factor, out=scaled, casting="same_kind")
                last = factor
            np.multiply(region[:, row], scaled, out=region[:, row])


def _repeated(region: Array, box: Box, along: int, count: int, step: int) -> Array:
    """`box` of a region (channels, *space), and what is `step` voxels further each: (count, channels, *box)."""
    first = region[(slice(None), *box)]
    strides = (step * region.strides[along + 1], *first.strides)
    return np.lib.stride_tricks.as_strided(first, (count, *first.shape), strides)


def empty(grid: SliceGrid, at: Box) -> list[tuple[slice | Array, ...]]:
    """The voxels of the region `at` that no slice has: an index into (channels, *region) for each axis with gaps."""
    found: list[tuple[slice | Array, ...]] = []
    for number, (axis, part) in enumerate(zip(grid.axes, at, strict=True)):
        if axis.stride > axis.size:
            voxels = np.arange(part.start, part.stop)
            (gaps,) = np.nonzero(voxels % axis.stride >= axis.size)
            if gaps.size:
                found.append((*[slice(None)] * (number + 1), gaps))
    return found


def _weights(axis: Axis, name: str) -> Array:
    return BLENDS[name](axis.size)


@lru_cache(maxsize=256)
def scale(axis: Axis, name: str, start: int, stop: int) -> Array:
    """What the sums of the voxels from `start` to `stop` are multiplied by, along one axis, float64: 1 / the sum of
    their weights, NaN where no slice is."""
    weights = _weights(axis, name) if axis.overlaps else ones(axis.size)
    voxels = np.arange(start, stop)
    sums = np.zeros(len(voxels))
    for earlier in range(-(-axis.size // axis.stride)):
        places = voxels // axis.stride - earlier
        inside = voxels - places * axis.stride
        there = (places >= 0) & (places < axis.count) & (inside < axis.size)
        sums[there] += weights[inside[there]]
    return np.divide(1.0, sums, out=np.full(len(voxels), np.nan), where=sums > 0)


def _product(axes: list[Array]) -> Array:
    """The outer product of vectors, float64."""
    product = axes[0]
    for axis in axes[1:]:
        product = product[..., None] * axis
    return product
