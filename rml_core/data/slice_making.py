"""One slice out of its volumes: cut, padded, transposed, transformed, and what counts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from rml_core.config.target import IGNORED
from rml_core.data import slice_lines
from rml_core.data.files import held_shape
from rml_core.data.floats import end, ended
from rml_core.data.masks import Mapped, to_classes
from rml_core.data.nans import Nans
from rml_core.data.neighbours import MOST_BYTES, read_of
from rml_core.data.section import Data
from rml_core.data.source import Room
from rml_core.data.volumes import Volume
from rml_core.slicers import extract
from rml_core.slicers.grid import SliceGrid, SliceLocation
from rml_core.transforms.chain import Chain
from rml_core.transforms.section import FILLED


class Row(NamedTuple):
    """Where a slice is put: rows of a `Room`, or None for arrays of its own. `cut`: its inputs are there already."""

    inputs: np.ndarray | None = None
    targets: np.ndarray | None = None
    kept: np.ndarray | None = None
    cut: bool = False


Reads = tuple[extract.Read, ...]


@dataclass(slots=True)
class One:
    """A slice that is to be made. `reads`: what reads each side. `rng`: where something is random. `draws`: what its
    transforms drew."""

    grid: SliceGrid
    location: SliceLocation
    reads: Reads
    rng: np.random.Generator | None
    training: bool
    draws: dict[int | str, Any] = field(default_factory=dict)


class Maker:
    """Makes slices of `inputs` and `targets` (None: they are made of the inputs, or there are none) by the chains of
    `data`. `values`: targets are values. `mapped`, `ignore_index`: how raw mask values become classes. `nans`: who
    counts them on each side, None: nobody.
    `common_bytes`: what neighbours are read together in takes, in a thread. Safe to use from several threads."""

    def __init__(
        self,
        data: Data,
        inputs: Volume,
        targets: Volume | None,
        values: bool,
        mapped: Mapped,
        ignore_index: int | None,
        nans: Sequence[Nans | None],
        common_bytes: int = MOST_BYTES,
    ) -> None:
        self._data, self._inputs, self._targets, self._values = data, inputs, targets, values
        self._chains = (data.input_chain, data.target_chain)
        self._of_inputs = data.makes_targets
        self._mapped, self._ignore_index, self._nans = mapped, ignore_index, nans
        self._common_bytes = common_bytes

    def is_plain(self, side: int, training: bool) -> bool:
        """Whether samples of a side (0: inputs, 1: targets) are what lies in the volume, but for arithmetic number by
        number."""
        chain = self._chains[side]
        return not self._of_inputs and chain.leading == 0 and chain.gathers(training)

    def reads(self, grid: SliceGrid, numbers: np.ndarray) -> Reads:
        """What reads the slices `numbers`, each side's."""
        sides = [side for side in (self._inputs, self._targets) if side is not None]
        return tuple(read_of(volume, grid, numbers, self._common_bytes // len(sides)) for volume in sides)

    def make(self, one: One, row: Row) -> Room:
        """The slice in the arrays of `row`, or in new ones where there are none."""
        inputs, targets = self._inputs, self._targets
        if self._of_inputs:
            led = self._led(0, inputs, one)
            made = Room(self._finished(0, led, one, row.inputs), self._finished(1, led, one, row.targets))
        else:
            cut = row.inputs if row.cut and row.inputs is not None else None
            made = Room(self._values_of(0, inputs, one, row.inputs) if cut is None else cut, None)
            if targets is not None:
                of_targets = self._values_of if self._values else self._classes_of
                made = made._replace(targets=of_targets(1, targets, one, row.targets))
        return made._replace(kept=self._kept(one, row.kept) if self._values and one.grid.fills else None)

    def make_line(self, grid: SliceGrid, numbers: np.ndarray, inputs: np.ndarray, training: bool) -> None:
        """The inputs of the slices `numbers`, which are views of one box (`slice_lines`)."""
        box = slice_lines.box_under(inputs, grid.axes[-1])
        wide, location = slice_lines.box_of(grid, numbers)
        extract.cut(self._inputs.read, wide, location, _channels_first(box))
        nans = self._nans[0]
        if nans is not None and nans.looking:
            locations = [grid.location(number) for number in numbers.tolist()]
            nans.look_along(extract.lying(_channels_first(box), wide), grid, locations, self._inputs.read)
        self._chains[0].ending(training).act_on(_channels_last(box))

    def _values_of(self, side: int, volume: Volume, one: One, out: np.ndarray | None) -> np.ndarray:
        """The voxels of `one` as float32, held, after the chain of `side`."""
        chain = self._chains[side]
        if not self.is_plain(side, one.training):
            return self._finished(side, self._led(side, volume, one), one, out)
        if out is None:
            out = np.empty(held_shape((volume.shape[0], *one.grid.sample_shape)), np.float32)
        extract.cut(one.reads[side], one.grid, one.location, _channels_first(out))
        self._look_for_nans(side, volume, out, one)
        chain.ending(one.training).act_on(_channels_last(out))
        return out

    def _led(self, side: int, volume: Volume, one: One) -> np.ndarray:
        """The voxels of `one` in their own type, held, after the leading steps."""
        array: np.ndarray = np.empty(held_shape((volume.shape[0], *one.grid.sample_shape)), volume.dtype)
        extract.cut(one.reads[side], one.grid, one.location, _channels_first(array))
        self._look_for_nans(side, volume, array, one)
        return self._chains[side].lead(array)

    def _finished(self, side: int, led: np.ndarray, one: One, out: np.ndarray | None) -> np.ndarray:
        chain = self._chains[side]
        array, ending = chain.finish(led, one.rng, one.draws, one.training), chain.ending(one.training)
        if out is None:
            return ended(ending, array)
        end(ending, array, out)
        return out

    def _classes_of(self, side: int, volume: Volume, one: One, out: np.ndarray | None) -> np.ndarray:
        """The classes of the voxels of `one`; padding and fill are of none."""
        chain, shape = self._chains[side], one.grid.sample_shape
        raw = one.reads[side](one.location.box)
        core = (slice(None), *extract.there(one.grid, one.location))
        if self.is_plain(side, one.training):
            out = np.empty(shape, np.int64) if out is None else out
            if raw[0].size != out.size:
                out.fill(IGNORED)
            extract.lying(out[None], one.grid)[core] = to_classes(raw, self._mapped, self._ignore_index)
            return out
        # Of a type that has room for what stands for no pixel.
        kind = np.int16 if raw.dtype in (np.uint8, np.int8, np.int16) else np.int32
        mask: np.ndarray = np.full((*shape, 1), FILLED, kind)
        extract.lying(mask.transpose(2, 0, 1), one.grid)[core] = raw
        mask = chain.finish(chain.lead(mask), one.rng, one.draws, one.training)
        classes = to_classes(mask[..., 0], self._mapped, self._ignore_index)
        if out is None:
            return classes
        out[...] = classes
        return out

    def _kept(self, one: One, out: np.ndarray | None) -> np.ndarray:
        """Where the array's own voxels are, moved as the targets are. What a transform fills counts as it does in
        samples that are no slices."""
        chain = self._kept_chain
        kept: np.ndarray = np.zeros(one.grid.sample_shape, np.uint8)
        kept[extract.kept(one.grid, one.location)] = 1
        if chain.steps:
            kept = chain.finish(chain.lead(kept[..., None]), one.rng, one.draws, one.training)[..., 0]
        if out is None:
            return kept != 0
        np.not_equal(kept, 0, out=out)
        return out

    @cached_property
    def _kept_chain(self) -> Chain:
        """The targets' chain as it moves a mask."""
        chain = Chain.of(
            self._data.transforms, self._data.target_transforms, "target_transforms", mask=True, targets=True
        )
        return replace(chain, steps=tuple(step for step in chain.steps if not step.transform.makes_targets))

    def _look_for_nans(self, side: int, volume: Volume, array: np.ndarray, one: One) -> None:
        nans = self._nans[side]
        if nans is not None and nans.looking:
            nans.look(array, one.grid, one.location, volume.read)


def _channels_first(held: np.ndarray) -> np.ndarray:
    return held.transpose(2, 0, 1) if held.ndim == 3 else held


def _channels_last(held: np.ndarray) -> np.ndarray:
    return held if held.ndim == 3 else np.moveaxis(held, 0, -1)
