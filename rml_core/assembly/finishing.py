"""What becomes of a region once all its predictions are there: sums to means, figures, numbers of the file's type,
bytes in their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rml_core.assembly.blend import Array, Blend, empty
from rml_core.assembly.layout import Assembly, Layout
from rml_core.slicers.grid import Box

# The class of a voxel that no slice has.
NO_CLASS = 255
# So many bytes of a region are converted at once.
STRIP = 1 << 22
# From here on a number is rounded to what half precision calls infinite.
BEYOND_HALF = 65520.0


class Score(Protocol):
    """Counts for figures, of a part of the prediction against what should be there."""

    def __call__(self, number: int, at: Box, values: Array) -> dict[str, Array] | None:
        """`values` (channels, *at) of slice set `number`, NaN in gaps."""


@dataclass(frozen=True)
class Finished:
    """A region that is in the file. `beyond`: how many finite numbers half precision has no room for. `counts`: of a
    `Score`."""

    nbytes: int
    beyond: int = 0
    counts: dict[str, Array] | None = None


@dataclass(frozen=True)
class Finishing:
    """How regions of `assembly` are finished. `mapped`: all writers are on this machine."""

    assembly: Assembly
    layout: Layout
    mapped: bool = False
    score: Score | None = None

    def __call__(self, number: int, blend: Blend, at: Box, sums: Array) -> Finished:
        """Finish the region `at` of set `number`: sums (channels, *at), of which nothing is left. Raises `OSError`."""
        blend.finish(sums, at)
        nbytes = beyond = 0
        for rows, part in _strips(sums, at, self._converts):
            written, too_large = self._converted(blend, part, sums[:, rows])
            self.layout.write(number, part, written, self.mapped)
            nbytes, beyond = nbytes + written.nbytes, beyond + too_large
        counts = None if self.score is None else self.score(number, at, sums)
        return Finished(nbytes, beyond, counts)

    @property
    def _converts(self) -> bool:
        return self.assembly.output == "argmax" or self.assembly.precision == "half"

    def _converted(self, blend: Blend, at: Box, values: Array) -> tuple[Array, int]:
        """What is written of values (channels, *at), and how many are beyond it. The values become what is written,
        classes apart."""
        if self.assembly.output == "argmax":
            classes = self._classes(values)
            for index in empty(blend.grid, at):
                classes[index] = NO_CLASS
            return classes, 0
        if self.assembly.precision == "half":
            halves, beyond = _halved(values)
            if self.score is not None:
                values[...] = halves
            return halves, beyond
        return values, 0

    def _classes(self, values: Array) -> Array:
        """(channels, *space) as (1, *space), uint8."""
        if len(values) == 1:
            return (values >= self.assembly.threshold).view(np.uint8)
        best = values[0].copy()
        classes = np.zeros((1, *best.shape), np.uint8)
        for channel in range(1, len(values)):
            better = values[channel] > best
            np.copyto(best, values[channel], where=better)
            classes[0][better] = channel
        return classes


def _strips(sums: Array, at: Box, converts: bool) -> Iterator[tuple[slice, Box]]:
    """Rows of a region along its first axis, and their boxes: a few at a time where they are made something else of,
    which takes room."""
    rows = sums.shape[1]
    few = max(1, STRIP // (sums.nbytes // rows)) if converts else rows
    first, others = at[0], at[1:]
    for start in range(0, rows, few):
        stop = min(start + few, rows)
        yield slice(start, stop), (slice(first.start + start, first.start + stop), *others)


def _halved(values: Array) -> tuple[Array, int]:
    import torch

    halves = torch.from_numpy(values).half().numpy()
    largest = max(values.max(), -values.min())
    # Of nan values nothing is known.
    if largest < BEYOND_HALF:
        return halves, 0
    return halves, int(np.count_nonzero(np.isinf(halves) & np.isfinite(values)))


def totalled(each: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts added up in the order of the list."""
    total: dict[str, Any] = {}
    for counts in each:
        for key, value in counts.items():
            total[key] = total[key] + value if key in total else value
    return total
