"""Prove that a slice set can be cut: its first slice, one in the middle, and its last."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rml_core.config.problem import RunFailed
from rml_core.data.prepared import Prepared, VolumeSide
from tasks.load import Source

if TYPE_CHECKING:
    import numpy as np

    from rml_core.data.volumes import Volume
    from rml_core.slicers.grid import Box, SliceGrid

# Chunks are decoded for three slices, not to be kept.
CACHE_BYTES = 16 << 20


@dataclass(frozen=True)
class Slicing:
    """Slice set `number` (from 0) of `source`."""

    source: Source
    number: int

    @cached_property
    def key(self) -> str:
        """The identity of the set: of the files, the section, and which of its sets."""
        return hashlib.blake2b(f"{self.source.key} {self.number}".encode(), digest_size=12).hexdigest()

    def is_whole(self) -> bool:
        """What the slices are cut from is still there, undamaged."""
        return self.source.is_whole()


@dataclass(frozen=True)
class SliceSet:
    """A handle on a slice set of a role, whose slices are there: they are cut when they are due.

    `said` names it. It is a text of its own: Prefect takes what two handles have in common for data that flows.
    """

    said: str


def slice_(slicing: Slicing, loaded: Prepared) -> SliceSet:
    """Cut three slices of a set from what `loaded` stands for, of inputs and targets.

    Raises:
        RunFailed: one cannot be read, or the array has another shape than planned; the set and the box are named.
    """
    grid = loaded.grids[slicing.number]
    sides: tuple[VolumeSide, ...] = ("inputs",) if loaded.target_form is None else ("inputs", "targets")
    for side in sides:
        volume = loaded.volume(side, CACHE_BYTES)
        try:
            if volume.shape[1:] != grid.lengths:
                raise RunFailed(
                    f"{volume.item} is {_sizes(volume.shape[1:])}, not {_sizes(grid.lengths)} as before: "
                    "has the file changed?"
                )
            for number in sorted({0, grid.count // 2, grid.count - 1}):
                _cut(volume, grid, number)
        finally:
            volume.close()
    return SliceSet(f"{loaded.role} {grid.name}: {grid.count} slices")


def _cut(volume: Volume, grid: SliceGrid, number: int) -> np.ndarray:
    import numpy as np

    from rml_core.slicers.extract import cut

    location = grid.location(number)
    sample: np.ndarray = np.empty((volume.shape[0], *grid.sample_shape), volume.dtype)
    try:
        cut(volume.read, grid, location, sample)
    except RunFailed as failed:
        raise RunFailed(f"{grid.name}, slice {number} at {_text(location.box)}: {failed}") from failed
    return sample


def _text(box: Box) -> str:
    """As it would be written in NumPy: `[0:64, 128:192]`."""
    return "[" + ", ".join(f"{part.start}:{part.stop}" for part in box) + "]"


def _sizes(space: tuple[int, ...]) -> str:
    return " x ".join(map(str, space))
