"""Slices of the volumes of a prepared role: cut, padded and transformed when they are due."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rml_core.config.problem import RunFailed
from rml_core.config.seed import Generators
from rml_core.data import slice_lines
from rml_core.data.files import channels_first, held_shape
from rml_core.data.masks import Mapped
from rml_core.data.nans import Nans
from rml_core.data.neighbours import MOST_BYTES
from rml_core.data.prepared import Prepared
from rml_core.data.slice_making import Maker, One, Reads, Row
from rml_core.data.slice_order import Order, layout_of, mixed, order_of
from rml_core.data.source import Room, Source
from rml_core.data.volumes import Volume, opened_volume
from rml_core.slicers.grid import SliceGrid
from rml_core.transforms.chain import Chain

# Where nothing but cutting is left and a batch has fewer numbers, handing it to a thread costs more than making it.
INLINE = 1 << 16


@dataclass(frozen=True)
class SliceSet:
    """The slices of one grid, the first of which is sample `first`. Shapes are those of held samples, None where
    sizes are drawn; `target`: of the target, a mask's without channels; None: there is none."""

    grid: SliceGrid
    first: int
    input: tuple[Any, ...]
    target: tuple[Any, ...] | None

    @property
    def alike(self) -> bool:
        return None not in self.input and None not in (self.target or ())


class Slices(Source):
    """What `prepared` stands for, where that is volumes and the grids they are cut by.

    `mapped`, `ignore_index`: how raw mask values become classes (`masks.mapping`). `channels`: of the network's output,
    where predictions are assembled: slices are then evaluated in the order in which they are. `cache_bytes`: what the
    decoded chunks of inputs and targets may take together. `common_bytes`: what neighbours that are read at once may,
    in a thread.
    """

    def __init__(
        self,
        prepared: Prepared,
        mapped: Mapped = None,
        ignore_index: int | None = None,
        channels: int | None = None,
        cache_bytes: int = 0,
        common_bytes: int = MOST_BYTES,
    ) -> None:
        self.prepared, self.data = prepared, prepared.data
        self._channels = channels
        self._values = prepared.target is not None and prepared.target.kind == "values"
        files = [prepared.inputs, *([prepared.targets] if prepared.targets else [])]
        self._items = [items[0] for items in files]
        self._inputs, self._targets = self._opened(cache_bytes)
        self._own = threading.local()
        self._draws = {
            training: any(
                step.transform.random
                for chain in (self.data.input_chain, self.data.target_chain)
                for step in chain.remaining(training)
            )
            for training in (False, True)
        }
        self.count = prepared.count
        self.sets = self._made_sets()
        self._firsts = [each.first for each in self.sets]
        self.names: Sequence[str] = _Texts(self.count, self.name)
        self.places: Sequence[str] = _Texts(self.count, self.place)
        self.warnings: list[str] = []
        self._nans = tuple(
            Nans([each.grid for each in self.sets], str(item)) if self._may_have_nans(volume) else None
            for item, volume in zip(self._items, (self._inputs, self._targets), strict=False)
        )
        self._maker = Maker(
            self.data, self._inputs, self._targets, self._values, mapped, ignore_index, self._nans, common_bytes
        )

    def _opened(self, cache_bytes: int) -> tuple[Volume, Volume | None]:
        """The volumes; each has its part of the cache, by the bytes of its voxels."""
        if len(self._items) == 1:
            return self.prepared.volume("inputs", cache_bytes), None
        layouts = [size for _, size in self._layouts]
        parts = [cache_bytes * size // sum(layouts) for size in layouts]
        return self.prepared.volume("inputs", parts[0]), self.prepared.volume("targets", parts[1])

    def _may_have_nans(self, volume: Volume | None) -> bool:
        """Of what is preloaded they are counted before."""
        return not self.prepared.preloaded and volume is not None and volume.dtype.kind == "f"

    @cached_property
    def _layouts(self) -> list[tuple[tuple[int, ...], int]]:
        """Of each volume as it lies in its file, wherever it is read from: the block of space that is read together,
        and the bytes of a voxel."""
        forms = [self.prepared.input_form, self.prepared.target_form]
        found = []
        for item, form in zip(self._items, forms, strict=False):
            assert form is not None
            volume = opened_volume(item, form, 0)
            found.append(layout_of(volume.shape, volume.dtype.itemsize, volume.chunks, volume.fortran))
            volume.close()
        return found

    def _made_sets(self) -> list[SliceSet]:
        training, target = self.prepared.role == "training", self.prepared.target
        made, first = [], 0
        for grid in self.prepared.grids:

            def shape(chain: Chain, channels: int, grid: SliceGrid = grid) -> tuple[Any, ...]:
                return channels_first(chain.acting(training).shape((*grid.sample_shape, channels)))

            inputs, targets = shape(self.data.input_chain, self._inputs.shape[0]), None
            if target is not None:
                targets = shape(self.data.target_chain, (self._targets or self._inputs).shape[0])
                targets = held_shape(targets) if self._values else targets[1:]
            made.append(SliceSet(grid, first, held_shape(inputs), targets))
            first += grid.count
        return made

    # --- which slices, in which order

    def parts(
        self, batch_size: int, seed: int, epoch: int, training: bool, shuffle: bool, start: int
    ) -> Iterator[np.ndarray]:
        for nans in filter(None, self._nans):
            nans.begin(whole=start == 0)
        if shuffle and training:
            yield from self._shuffled(batch_size, seed, epoch, start)
        else:
            yield from self._sorted(batch_size, training, start)

    def passed(self) -> None:
        for nans in filter(None, self._nans):
            self.warnings += nans.end()

    def _sorted(self, batch_size: int, training: bool, start: int) -> Iterator[np.ndarray]:
        for each in self.sets:
            grid, channels = each.grid, None if training else self._channels
            axis = 0 if channels is None else grid.slab_axis(channels)
            for at in range(start * batch_size, grid.count, batch_size):
                numbers: Any = np.arange(at, min(at + batch_size, grid.count))
                ordered: Any = numbers if channels is None else grid.in_order(numbers, axis)
                yield each.first + slice_lines.ascending(grid, ordered)
            start = max(start - -(-grid.count // batch_size), 0)

    def _shuffled(self, batch_size: int, seed: int, epoch: int, start: int) -> Iterator[np.ndarray]:
        counts = [-(-each.grid.count // batch_size) for each in self.sets]
        begun: dict[int, Iterator[np.ndarray]] = {}
        for which, number in mixed(counts, seed, epoch, start):
            if which not in begun:
                parts = self._orders[which].numbers(seed, epoch, number * batch_size)
                begun[which] = _in_batches(parts, batch_size)
            yield self.sets[which].first + next(begun[which])

    @cached_property
    def _orders(self) -> list[Order]:
        return [order_of(each.grid, self._layouts) for each in self.sets]

    def is_quick(self, training: bool, batch_size: int) -> bool:
        mapped = all(volume is None or volume.chunks is None for volume in (self._inputs, self._targets))
        plain = all(self._maker.is_plain(side, training) for side in (0, 1))
        largest = max(int(np.prod([size or 0 for size in each.input])) for each in self.sets)
        return self.prepared.preloaded and mapped and plain and batch_size * largest <= INLINE

    # --- what is in them

    def room(self, indices: np.ndarray) -> Room | None:
        of, count = self._set_of(indices[0] if len(indices) else 0), len(indices)
        if not of.alike:
            return None
        inputs: np.ndarray
        if self._shares and slice_lines.is_line(of.grid, indices - of.first):
            grid, _ = slice_lines.box_of(of.grid, indices - of.first)
            box: np.ndarray = np.empty(held_shape((self._inputs.shape[0], *grid.sample_shape)), np.float32)
            inputs = slice_lines.views(box, of.grid.axes[-1], count)
        else:
            inputs = np.empty((count, *of.input), np.float32)
        if of.target is None:
            return Room(inputs, None)
        if not self._values:
            return Room(inputs, np.empty((count, *of.target), np.int64))
        targets: np.ndarray = np.empty((count, *of.target), np.float32)
        return Room(inputs, targets, np.empty((count, *_space(of.target)), bool) if of.grid.fills else None)

    @cached_property
    def _shares(self) -> bool:
        """Whether the inputs of samples are what lies in the volume, number by number."""
        return all(self._maker.is_plain(0, training) for training in (True, False))

    def fill(self, indices: np.ndarray, room: Room, seed: int, epoch: int, training: bool) -> None:
        if not len(indices):
            return
        of = self._set_of(int(indices[0]))
        if room.shares:
            self._maker.make_line(of.grid, indices - of.first, room.inputs, training)
        reads = self._maker.reads(of.grid, indices - of.first)
        for row, index in enumerate(indices.tolist() if self._targets is not None or not room.shares else ()):
            inputs, targets, kept = (None if array is None else array[row, ...] for array in room)
            into = Row(inputs, targets, kept, cut=room.shares)
            self._make(index, into, reads, seed, epoch, training)

    def alone(self, indices: np.ndarray, seed: int, epoch: int, training: bool) -> Room:
        if len(indices) != 1:
            raise ValueError(f"slices of different shapes cannot be a batch of {len(indices)}")
        made = self._make(int(indices[0]), Row(), None, seed, epoch, training)
        inputs, *others = (None if array is None else array[None] for array in made)
        assert inputs is not None
        return Room(inputs, *others)

    def _make(self, index: int, row: Row, reads: Reads | None, seed: int, epoch: int, training: bool) -> Room:
        of = self._set_of(index)
        reads = reads or self._maker.reads(of.grid, np.array([index - of.first]))
        rng = self._generator(index, seed, epoch, training)
        one = One(of.grid, of.grid.location(index - of.first), reads, rng, training)
        try:
            return self._maker.make(one, row)
        except RunFailed:
            raise
        except Exception as error:  # whatever OpenCV or numpy says of this slice
            said = " ".join(str(error).split())
            raise RunFailed(f"{self.places[index]}: cannot be transformed: {said}") from error

    # --- what is said of them

    def forget(self) -> None:
        for volume in self._volumes:
            volume.forget()

    def close(self) -> None:
        for volume in self._volumes:
            volume.close()

    @property
    def _volumes(self) -> list[Volume]:
        return [volume for volume in (self._inputs, self._targets) if volume is not None]

    def broken(self, indices: np.ndarray) -> str:
        found = []
        for index in map(int, indices):
            inputs, targets, _ = self._make(index, Row(), None, 0, 0, training=False)
            if not np.isfinite(inputs).all():
                found.append((index, 0))
            elif targets is not None and not np.isfinite(targets).all():
                found.append((index, -1))
        if not found:
            return ""
        has = "has" if len(found) == 1 else f"and {len(found) - 1} more of the batch have"
        index, side = found[0]
        return f"{self.place(index, side)} {has} numbers that are nan or infinite: mend them or leave them out"

    def name(self, index: int) -> str:
        """`xz-slices/00042`."""
        of = self._set_of(index)
        return f"{of.grid.name}/{index - of.first:05}"

    def place(self, index: int, side: int = 0) -> str:
        """The name, and the box of the file's array: `xz-slices/00042 ([0:64, 42:43, 0:64] of a.npy)`."""
        of = self._set_of(index)
        box = ", ".join(f"{part.start}:{part.stop}" for part in of.grid.location(index - of.first).box)
        return f"{self.name(index)} ([{box}] of {self._items[side]})"

    def _set_of(self, index: int) -> SliceSet:
        return self.sets[bisect_right(self._firsts, index) - 1]

    def _generator(self, index: int, seed: int, epoch: int, training: bool) -> np.random.Generator | None:
        if not self._draws[training]:
            return None
        if not hasattr(self._own, "generators"):
            self._own.generators = Generators()
        # What is random in evaluation is the same in every epoch.
        return self._own.generators.at(seed, "transform", epoch if training else "evaluation", index)


class _Texts(Sequence[str]):
    """What `text` makes of each number below `count`."""

    def __init__(self, count: int, text: Callable[[int], str]) -> None:
        self._count, self._text = count, text

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._text(int(index))


def _space(held: tuple[Any, ...]) -> tuple[Any, ...]:
    """The sizes of space of a held shape."""
    return held[:2] if len(held) == 3 else held[1:]


def _in_batches(parts: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The numbers of `parts`, `size` at a time."""
    left: np.ndarray = np.empty(0, np.int64)
    for part in parts:
        left = np.concatenate([left, part]) if len(left) else part
        whole = len(left) // size * size
        for at in range(0, whole, size):
            yield left[at : at + size]
        left = left[whole:]
    if len(left):
        yield left
