"""Predictions of slices come in here, batch by batch, and leave as one file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rml_core.assembly.blend import Array, Batch, Blend
from rml_core.assembly.finishing import Finished, Finishing, Score, totalled
from rml_core.assembly.layout import Assembly, Outfile
from rml_core.assembly.regions import Regions

if TYPE_CHECKING:
    from torch import Tensor


class Way(Protocol):
    """How sums are made of predictions: `ring` or `spool`."""

    def add(self, number: int, start: int, batch: Batch) -> None: ...

    def end(self, look: Callable[[], None]) -> list[tuple[int, Finished]]: ...

    def finished(self) -> list[Finished]: ...

    def discard(self) -> None: ...


# way(blends, finishing, path): beside `path`, the file to be, there is room.
MakeWay = Callable[[tuple[Blend, ...], Finishing, Path], Way]


@dataclass(frozen=True)
class Assembled:
    """A file that is whole. `counts`: by slice set, of the `Score`. `beyond`: how many finite numbers were too large
    for half precision."""

    nbytes: int
    beyond: int = 0
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)


class Assembler:
    """Takes predictions while inference goes on. `way` says who adds and writes, `mapped` that all of them are on this
    machine; `score` judges what is written. `scratch`: where files for URLs are made.

    Raises:
        RunFailed: there is no room for the file, or it cannot be written.
    """

    def __init__(
        self,
        assembly: Assembly,
        way: MakeWay,
        score: Score | None = None,
        mapped: bool = True,
        scratch: Path | None = None,
    ):
        self.assembly = assembly
        self._outfile = Outfile(assembly, scratch)
        self._firsts = [0, *accumulate(grid.count for grid in assembly.grids)]
        self._taken = 0
        try:
            self._regions = [Regions(grid, assembly.channels) for grid in assembly.grids]
            blends = tuple(Blend(regions, assembly.blend) for regions in self._regions)
            finishing = Finishing(assembly, self._outfile.layout, mapped, score)
            self._way = way(blends, finishing, self._outfile.local)
        except BaseException:
            self._outfile.discard()
            raise

    def add(self, indices: Array, outputs: Tensor) -> None:
        """outputs (N, channels, *sample) of the slices `indices`, numbered through all sets: a batch of one set. Sets
        come one after the other, the slices of each as `grid.in_order` has them, but for their order in the batch.

        `outputs` must not change afterwards. Waits while too much is under way.
        """
        arrays = outputs.detach().float().cpu().numpy()
        number = bisect_right(self._firsts, self._taken) - 1
        start = self._taken - self._firsts[number]
        batch = Batch.of(self._regions[number], start, np.asarray(indices) - self._firsts[number], arrays)
        try:
            self._way.add(number, start, batch)
        except OSError as error:
            raise self._outfile.failure(error) from error
        self._taken += len(arrays)

    def finish(self, report: Callable[[int, int, int], None] | None = None) -> Assembled:
        """Wait for all that is under way; the file appears under its name. `report(regions, of, bytes)` is told now and
        then what is in the file. Raises `RunFailed`."""
        regions = sum(prod(Regions(grid, self.assembly.channels).counts) for grid in self.assembly.grids)

        def look() -> None:
            if report is not None:
                there = self._way.finished()
                report(len(there), regions, sum(each.nbytes for each in there))

        try:
            if self._taken != self._firsts[-1]:
                raise ValueError(f"{self._taken} predictions of {self._firsts[-1]}")
            done = self._way.end(look)
            self._outfile.appear()
            look()
        except OSError as error:
            raise self._outfile.failure(error) from error
        finally:
            self._outfile.discard()
        names = [grid.name for grid in self.assembly.grids]
        counts = {
            name: totalled([each.counts for at, each in done if at == number and each.counts is not None])
            for number, name in enumerate(names)
        }
        return Assembled(
            sum(each.nbytes for _, each in done),
            sum(each.beyond for _, each in done),
            {name: each for name, each in counts.items() if each},
        )

    def discard(self) -> None:
        """Leave nothing; a file of that name stays as it was. Once finished there is nothing to leave."""
        try:
            self._way.discard()
        finally:
            self._outfile.discard()
