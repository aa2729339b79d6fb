"""The order in which slices are trained on: all over the volume, in windows that suit how the volume is stored.

A slice that is cut out of a chunked file costs all the chunks that it touches: a plane across chunks of 64 voxels a
side costs 64 times what it uses. In a plain shuffle the next plane in the same chunks comes when these have long left
memory. So the slices are parted into *runs*, those that share their storage, and the runs, in random order, into
*windows* of at most `WINDOW` bytes; what is in a window comes in random order too. While a window lasts, its chunks
are kept by the cache of the volume (or by the operating system, of files that are mapped), and each is read once. A
volume that is no larger than a window is shuffled as a whole.

Everything rests on the geometry, on the layout of the files that the run file names, and on the constants here: never
on how much memory there is or on who reads when. Nothing grows with the number of slices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from rml_core.config.seed import derive, generator
from rml_core.data.chunked import runs
from rml_core.data.page_cache import READ_AHEAD
from rml_core.slicers.grid import Axis, SliceGrid

# Bytes of inputs and targets, as they are stored once decoded, among which slices are shuffled.
WINDOW = 1 << 29
# A window has so many runs at least, from all over the volume, where slices are not larger than that; and at most.
RUNS, MOST_RUNS = 8, 1 << 17
# Runs whose border costs more than this part of what they have are made longer, where there is room.
SHARED = 1.5
# Permutations of more are computed number by number.
LISTED = 1 << 20


class Permutation:
    """The numbers below `count` in an order drawn from `key`; `permutation[positions]` asks for any of them.

    Long ones are a Feistel network of four rounds (Luby and Rackoff, doi:10.1137/0217022) over the next power of 4,
    applied again to what lies beyond `count` until it does not (Black and Rogaway, doi:10.1007/3-540-45760-7_9).
    """

    def __init__(self, count: int, key: int) -> None:
        self.count = count
        self._listed = np.random.Generator(np.random.Philox(key=key)).permutation(count) if count <= LISTED else None
        self._half = max(((count - 1).bit_length() + 1) // 2, 1)
        self._keys = [np.uint64(derive(key, "round", number)) for number in range(4)]

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        if self._listed is not None:
            return self._listed[positions]
        found = self._rounds(np.asarray(positions, np.uint64))
        beyond = np.flatnonzero(found >= self.count)
        while len(beyond):
            found[beyond] = again = self._rounds(found[beyond])
            beyond = beyond[again >= self.count]
        return found.astype(np.int64)

    def _rounds(self, numbers: np.ndarray) -> np.ndarray:
        half, mask = np.uint64(self._half), np.uint64((1 << self._half) - 1)
        left, right = numbers >> half, numbers & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return (left << half) | right


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Each number's bits spread over all of it: the end of SplitMix64 (Steele and others,
    doi:10.1145/2714064.2660195)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


@dataclass(frozen=True)
class Cuts:
    """One axis of a grid in runs: those slices are in one that begin in the same `length` voxels."""

    axis: Axis
    length: int

    @cached_property
    def each(self) -> bool:
        """Every slice is a run of its own."""
        return self.length <= self.axis.stride

    @cached_property
    def count(self) -> int:
        if self.each:
            return self.axis.count
        return (self.axis.count - 1) * self.axis.stride // self.length + 1

    def first(self, run: np.ndarray) -> np.ndarray:
        """The first slice of each run; of the one behind the last one, the number of slices."""
        if self.each:
            return run
        return np.minimum(-(-run * self.length // self.axis.stride), self.axis.count)

    def touched(self, block: int) -> int:
        """The voxels that a run reads along the axis, at most, where they are stored in blocks."""
        voxels, step = self.axis.padded, self.axis.stride
        if not self.each:
            voxels, step = voxels + self.length - 1, self.length
        aligned = step % block == 0 or (block % step == 0 and voxels <= step)
        blocks = -(-voxels // block) + (0 if aligned else 1)
        return min(blocks * block, -(-self.axis.length // block) * block)

    @property
    def own(self) -> int:
        """The voxels of the axis that are a run's own."""
        return max(self.length, self.axis.stride)


@dataclass(frozen=True)
class Order:
    """The slices of one set: run after run, `runs` of them a window; None: one window with all slices."""

    grid: SliceGrid
    cuts: tuple[Cuts, ...]
    runs: int | None

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        return tuple(cut.count for cut in self.cuts)

    def numbers(self, seed: int, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
        """The numbers of all slices in the order of `epoch`, some at a time, from position `start` on."""
        place = (seed, "slices", self.grid.name, epoch)
        if self.runs is None:
            yield from _in_parts(Permutation(self.grid.count, derive(*place)), start)
            return
        total = prod(self._counts)
        order = Permutation(total, derive(*place))
        for window, first in enumerate(range(0, total, self.runs)):
            places = self._unravelled(order[np.arange(first, min(first + self.runs, total))], self._counts)
            begins = [cut.first(at) for cut, at in zip(self.cuts, places, strict=True)]
            sizes = [cut.first(at + 1) - begin for cut, at, begin in zip(self.cuts, places, begins, strict=True)]
            ends = np.cumsum(np.prod(sizes, axis=0))
            count = int(ends[-1])
            if start >= count:
                start -= count
                continue
            for positions in _in_parts(Permutation(count, derive(*place, window)), start):
                run = np.searchsorted(ends, positions, side="right")
                within = positions - np.where(run > 0, ends[run - 1], 0)
                of_run = self._unravelled(within, [size[run] for size in sizes])
                yield self.grid.number(tuple(begin[run] + at for begin, at in zip(begins, of_run, strict=True)))  # type: ignore[misc]
            start = 0

    @staticmethod
    def _unravelled(numbers: np.ndarray, counts: Sequence[int | np.ndarray]) -> list[np.ndarray]:
        places = []
        for count in reversed(counts):
            numbers, place = numbers // count, numbers % count
            places.append(place)
        return places[::-1]


# So many numbers at a time.
PART = 1 << 14


def _in_parts(order: Permutation, start: int) -> Iterator[np.ndarray]:
    for at in range(start, order.count, PART):
        yield order[np.arange(at, min(at + PART, order.count))]


def layout_of(
    shape: tuple[int, ...], itemsize: int, chunks: tuple[int, ...] | None, fortran: bool = False
) -> tuple[tuple[int, ...], int]:
    """Of an array (C, *space) in `chunks` (None: as it lies in memory, in Fortran's order or C's), the block of space
    that is read together, and the bytes of a voxel with all its channels."""
    block = runs(shape, itemsize, READ_AHEAD, fortran) if chunks is None else chunks
    return block[1:], shape[0] * itemsize


def order_of(grid: SliceGrid, layouts: Sequence[tuple[tuple[int, ...], int]]) -> Order:
    """The order of the slices of `grid`. `layouts`: of each array that they are cut from, the block of space that is
    read together, and the bytes of a voxel with all its channels."""
    a_voxel = sum(size for _, size in layouts)
    if prod(grid.lengths) * a_voxel <= WINDOW:
        return Order(grid, (), None)
    blocks = [max(sizes) for sizes in zip(*(block for block, _ in layouts), strict=True)]
    cuts = [Cuts(axis, block) for axis, block in zip(grid.axes, blocks, strict=True)]

    def taken(cuts: Sequence[Cuts]) -> int:
        """Bytes that a run reads."""
        return prod(cut.touched(block) for cut, block in zip(cuts, blocks, strict=True)) * a_voxel

    def scaled(number: int, factor: float) -> list[Cuts]:
        changed = Cuts(cuts[number].axis, int(cuts[number].length * factor))
        return [*cuts[:number], changed, *cuts[number + 1 :]]

    most = WINDOW // RUNS
    while taken(cuts) > most:
        # Runs that share their chunks with others cost as much as before, each.
        shorter = [
            made for number, cut in enumerate(cuts) if not cut.each and taken(made := scaled(number, 0.5)) < taken(cuts)
        ]
        if not shorter:
            break
        cuts = min(shorter, key=taken)
    while True:
        shares = [
            0.0 if cut.count == 1 else cut.touched(block) / cut.own for cut, block in zip(cuts, blocks, strict=True)
        ]
        longer = scaled(shares.index(max(shares)), 2)
        if max(shares) <= SHARED or taken(longer) > most:
            break
        cuts = longer
    return Order(grid, tuple(cuts), min(max(WINDOW // taken(cuts), 1), MOST_RUNS))


def mixed(counts: Sequence[int], seed: int, epoch: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Which set each batch of an epoch is from, and its number in there: set i gives `counts[i]`, evenly over the whole
    epoch; from position `start` on.

    Batch j of set i stands at (j + u) / counts[i], u ~ U[0, 1).
    """
    total = sum(counts)
    # So many batches of each set stand before `start` for sure; the others are gone through.
    before = max(start - len(counts), 0)
    heads = [
        _Head(count, before * count // max(total, 1), (seed, epoch, number)) for number, count in enumerate(counts)
    ]
    for position in range(sum(head.number for head in heads), total):
        which = min(range(len(heads)), key=lambda number: heads[number].at)
        if position >= start:
            yield which, heads[which].number
        heads[which].advance()


class _Head:
    """The next batch of a set, and where in the epoch it stands."""

    def __init__(self, count: int, number: int, place: tuple[int, int, int]) -> None:
        self._count, self.number, self._place = count, number, place
        self._drawn, self._part = np.empty(0), -1
        self._find()

    def advance(self) -> None:
        self.number += 1
        self._find()

    def _find(self) -> None:
        if self.number >= self._count:
            self.at = math.inf
            return
        part, within = divmod(self.number, PART)
        if part != self._part:
            seed, *place = self._place
            self._drawn, self._part = generator(seed, "mixed", *place, part).random(PART), part
        self.at = (self.number + float(self._drawn[within])) / self._count
