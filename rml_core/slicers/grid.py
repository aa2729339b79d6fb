"""Where the slices of a set lie in an array: plain arithmetic, the same for who cuts and for who assembles.

A grid holds no arrays, and nothing in it grows with the number of slices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import prod

# A layer of so many numbers is gathered without a thought: 64 MiB of single precision.
EASY_LAYER = 1 << 24

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Axis:
    """One axis of space: `length` voxels, of which slice i takes `size` from i * `stride` on, and gets `before` and
    `after` voxels of padding. The last slice may reach beyond the array: it is filled up."""

    length: int
    size: int
    stride: int
    before: int = 0
    after: int = 0
    discard_remainders: bool = False

    @cached_property
    def count(self) -> int:
        """How many slices there are; 0 where remainders are discarded and there is nothing else."""
        beyond = self.length - self.size
        if self.discard_remainders:
            return beyond // self.stride + 1 if beyond >= 0 else 0
        return min(-(-max(beyond, 0) // self.stride) + 1, -(-self.length // self.stride))

    @property
    def padded(self) -> int:
        """The size of a slice with its padding."""
        return self.before + self.size + self.after

    @property
    def dropped(self) -> bool:
        """Slices are flat along this axis, and samples do not have it."""
        return self.size == 1

    @property
    def extent(self) -> int:
        """How far the prediction reaches: over the array, or over what is not discarded of it."""
        return (self.count - 1) * self.stride + self.size if self.discard_remainders else self.length

    @property
    def overlaps(self) -> bool:
        return self.stride < self.size and self.count > 1

    @cached_property
    def apart(self) -> int:
        """Slices that are so many places apart do not overlap."""
        return max(1, min(-(-self.size // self.stride), self.count))

    def in_turns(self, position: int) -> int:
        """The place at `position` where those that are `apart` follow each other: 0, 2, 4, 1, 3 of five halfway
        overlapping slices. What is beside each other can be added at once. Arrays of positions give arrays."""
        short, long = divmod(self.count, self.apart)
        # The first `long` turns have one slice more than the others.
        longer = long * (short + 1)
        ahead = position < longer
        turn, at = divmod(position, short + 1)
        other_turn, other_at = divmod(position - longer, max(short, 1))
        turn = ahead * turn + (1 - ahead) * (other_turn + long)
        return turn + (ahead * at + (1 - ahead) * other_at) * self.apart

    def turned(self, places: Iterable[int]) -> list[int]:
        """Some places, as they come `in_turns`."""
        return sorted(places, key=lambda place: (place % self.apart, place))

    def start(self, place: int) -> int:
        return place * self.stride

    def stop(self, place: int) -> int:
        """Behind the last voxel of the array that is in the slice."""
        return min(place * self.stride + self.size, self.length)

    def covering(self, voxel: int) -> range:
        """The slices that `voxel` is in, padding apart; empty in a gap."""
        first = max(-(-(voxel - self.size + 1) // self.stride), 0)
        return range(first, min(voxel // self.stride + 1, self.count))


@dataclass(frozen=True)
class SliceLocation:
    """One slice: its place along each axis of the grid, and its box of voxels in the array, padding and fill apart."""

    place: tuple[int, ...]
    box: Box

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the voxels that are there."""
        return tuple(part.stop - part.start for part in self.box)


@dataclass(frozen=True)
class SliceGrid:
    """All slices of a set, numbered in C order of their places.

    `transpose`: the two axes of a 2D sample are swapped. `padding_mode`: zeros, edge, reflect or context.
    """

    name: str
    axes: tuple[Axis, ...]
    transpose: bool = False
    padding_mode: str = "zeros"

    @cached_property
    def counts(self) -> tuple[int, ...]:
        return tuple(axis.count for axis in self.axes)

    @cached_property
    def count(self) -> int:
        return prod(self.counts)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The shape of the array, channels apart."""
        return tuple(axis.length for axis in self.axes)

    @property
    def extent(self) -> tuple[int, ...]:
        """The shape of the prediction, channels apart."""
        return tuple(axis.extent for axis in self.axes)

    @cached_property
    def kept_axes(self) -> tuple[int, ...]:
        """The axes that samples have, in the order that they have them."""
        kept = [number for number, axis in enumerate(self.axes) if not axis.dropped]
        return tuple(reversed(kept)) if self.transpose else tuple(kept)

    @cached_property
    def sample_shape(self) -> tuple[int, ...]:
        """Of a sample as the network gets it, channels apart."""
        return tuple(self.axes[number].padded for number in self.kept_axes)

    @property
    def fills(self) -> bool:
        """Whether some voxel of some sample is padding or fill."""
        return any(
            axis.before or axis.after or (axis.count and axis.start(axis.count - 1) + axis.size > axis.length)
            for axis in self.axes
        )

    @property
    def overlaps(self) -> bool:
        return any(axis.overlaps for axis in self.axes)

    @property
    def gaps(self) -> bool:
        """Whether some voxel of the extent is in no slice."""
        return any(axis.stride > axis.size and axis.extent > axis.size for axis in self.axes)

    def place(self, number: int) -> tuple[int, ...]:
        """The place of slice `number`. Raises `IndexError`."""
        if not 0 <= number < self.count:
            raise IndexError(f"slice {number} of {self.count}")
        found = []
        for count in reversed(self.counts):
            number, place = divmod(number, count)
            found.append(place)
        return tuple(reversed(found))

    def number(self, place: tuple[int, ...]) -> int:
        found = 0
        for at, count in zip(place, self.counts, strict=True):
            found = found * count + at
        return found

    def location(self, number: int) -> SliceLocation:
        return self.at(self.place(number))

    def at(self, place: tuple[int, ...]) -> SliceLocation:
        return SliceLocation(
            place, tuple(slice(axis.start(at), axis.stop(at)) for axis, at in zip(self.axes, place, strict=True))
        )

    def slab_axis(self, channels: int) -> int:
        """The axis along which predictions of `channels` are assembled, a layer of slices after the other: the first
        one whose layers are easily held, else that of the smallest ones. It rests on the geometry alone, as the order
        in which overlapping predictions are added does."""
        layers = [prod(self.extent) * channels * axis.size // max(axis.extent, 1) for axis in self.axes]
        easy = [number for number, layer in enumerate(layers) if layer <= EASY_LAYER]
        return easy[0] if easy else layers.index(min(layers))

    def in_order(self, position: int, slab_axis: int) -> int:
        """The number of the slice that is at `position` (from 0) where the layers along `slab_axis` follow each other,
        each in C order of its lines, each of which goes `in_turns`. Arrays of positions give arrays of numbers."""
        counts = self.counts
        place: list[int] = [0] * len(counts)
        inner = [number for number in range(len(counts)) if number != slab_axis]
        for axis in reversed(inner):
            position, place[axis] = position // counts[axis], position % counts[axis]
        if inner:
            place[inner[-1]] = self.axes[inner[-1]].in_turns(place[inner[-1]])
        place[slab_axis] = position
        return self.number(tuple(place))
