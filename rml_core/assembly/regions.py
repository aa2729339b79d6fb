"""The prediction of a slice set in regions: boxes that are gathered, finished and written one by one.

Like a grid, they are arithmetic alone: how many processes or threads share the work does not move a border.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from rml_core.slicers.grid import Axis, Box, SliceGrid

# What a region takes in single precision: enough for long writes, little enough to stay near the processor.
USUAL, MOST = 16 << 20, 64 << 20
SINGLE = 4

Index = tuple[int, ...]


@dataclass(frozen=True)
class Regions:
    """The extent of `grid`, `channels` deep, cut into boxes of `tile` voxels; those at the end may be smaller.

    Slices come in the order of `grid.in_order`, a layer along `axis` after the other. `usual`, `most`: bytes of a
    region.
    """

    grid: SliceGrid
    channels: int
    usual: int = field(default_factory=lambda: USUAL)
    most: int = field(default_factory=lambda: MOST)

    @cached_property
    def axis(self) -> int:
        return self.grid.slab_axis(self.channels)

    @cached_property
    def layers(self) -> int:
        return self.grid.counts[self.axis]

    @cached_property
    def slices_a_layer(self) -> int:
        return self.grid.count // self.layers

    @cached_property
    def tile(self) -> tuple[int, ...]:
        """The shape of a region: some of the voxels of a layer along `axis`, all of the others where they are few."""
        extent, axes = self.grid.extent, self.grid.axes
        tile = list(extent)
        row = self.channels * prod(extent) // extent[self.axis] * SINGLE
        # Along the last axis the rows of a region are the runs that are written.
        usual = self.most if self.axis == len(extent) - 1 and len(extent) > 1 else self.usual
        along = axes[self.axis]
        tile[self.axis] = _fitting(max(usual // row, -(-along.size // 4)), along)
        for number, axis in enumerate(axes):
            held = self.channels * prod(tile) * SINGLE
            if number != self.axis and held > self.most:
                tile[number] = _fitting(max(self.most * tile[number] // held, axis.size), axis)
        return tuple(tile)

    @cached_property
    def counts(self) -> Index:
        return tuple(-(-length // size) for length, size in zip(self.grid.extent, self.tile, strict=True))

    @property
    def largest(self) -> int:
        """Of the numbers of a region, channels included."""
        return self.channels * prod(self.tile)

    def box(self, index: Index) -> Box:
        return tuple(
            slice(at * size, min((at + 1) * size, length))
            for at, size, length in zip(index, self.tile, self.grid.extent, strict=True)
        )

    def touched(self, box: Box) -> Iterator[Index]:
        """The regions that have a voxel in `box`."""
        return itertools.product(
            *(range(part.start // size, (part.stop - 1) // size + 1) for part, size in zip(box, self.tile, strict=True))
        )

    def finished(self, layer: int) -> Iterator[Index]:
        """The regions that nothing is missing from behind `layer`, but for those of the layers before: each region
        once, those in gaps included."""
        stride, size = self.grid.axes[self.axis].stride, self.tile[self.axis]
        last = self.counts[self.axis] if layer == self.layers - 1 else (layer + 1) * stride // size
        first = layer * stride // size
        ranges = [range(count) for count in self.counts]
        ranges[self.axis] = range(min(first, self.counts[self.axis]), min(last, self.counts[self.axis]))
        return itertools.product(*ranges)

    def slices(self, index: Index) -> Iterator[tuple[int, ...]]:
        """The places of the slices that have a voxel in the region, in the order of `grid.in_order`."""
        axes = self.grid.axes
        touching: list[Iterable[int]] = [
            _touching(axis, part) for axis, part in zip(axes, self.box(index), strict=True)
        ]
        if self.along != self.axis:
            touching[self.along] = axes[self.along].turned(touching[self.along])
        for layer in touching[self.axis]:
            touching[self.axis] = (layer,)
            yield from itertools.product(*touching)

    @cached_property
    def along(self) -> int:
        """The axis of lines: the last one beside that of the layers."""
        return max((axis for axis in range(len(self.grid.axes)) if axis != self.axis), default=0)

    def within_layer(self, place: tuple[int, ...]) -> int:
        """The number of a slice among those of its layer."""
        number = 0
        for axis, (at, count) in enumerate(zip(place, self.grid.counts, strict=True)):
            if axis != self.axis:
                number = number * count + at
        return number

    def readers(self, layer: int) -> int:
        """How many regions have a voxel of a slice of `layer`."""
        box = [slice(0, length) for length in self.grid.extent]
        along = self.grid.axes[self.axis]
        box[self.axis] = slice(along.start(layer), along.stop(layer))
        return sum(1 for index in self.touched(tuple(box)) if layer in self.layers_of(index))

    def layers_of(self, index: Index) -> range:
        """The layers that have a voxel in the region; empty in a gap."""
        return _touching(self.grid.axes[self.axis], self.box(index)[self.axis])

    def place(self, position: int) -> tuple[int, ...]:
        """Of the slice that comes at `position`."""
        return self.grid.place(self.grid.in_order(position, self.axis))


def _fitting(voxels: int, axis: Axis) -> int:
    """About `voxels`, and at most the axis: whole strides, or an even part of one."""
    if voxels >= axis.stride:
        voxels -= voxels % axis.stride
    else:
        voxels = -(-axis.stride // -(-axis.stride // voxels))
    return max(1, min(voxels, axis.extent))


def _touching(axis: Axis, part: slice) -> range:
    first = max(-(-(part.start - axis.size + 1) // axis.stride), 0)
    return range(first, max(first, min((part.stop - 1) // axis.stride + 1, axis.count)))


def common(one: Box, other: Box) -> Box:
    """The voxels of both boxes, which have some."""
    return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))


def within(box: Box, origin: Box) -> Box:
    """`box` counted from the first voxel of `origin`."""
    return tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, origin, strict=True))
