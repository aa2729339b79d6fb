"""Figures over an assembled prediction, each of its voxels counted once, a region at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import torch

from rml_core.config.target import Target
from rml_core.data.masks import Mapped, to_classes
from rml_core.data.prepared import Prepared
from rml_core.data.volumes import Volume
from rml_core.engine.metrics import Metric, metrics_for
from rml_core.slicers.grid import Axis, Box

# So many voxels are judged at once: what is counted takes several times the room of what is judged.
STRIP = 1 << 18


@dataclass(frozen=True)
class Scoring:
    """The figures of an evaluation of `test`, against its target volume. `source`, `ignored`: as `metrics_for` takes
    them; `ignore_index`: the raw value that stands for no class. It can be pickled."""

    test: Prepared
    target: Target
    channels: int
    source: str
    mapped: Mapped
    ignored: int | None
    ignore_index: int | None
    cache_bytes: int

    @classmethod
    def fits(cls, test: Prepared) -> bool:
        """Whether what the network is held against lies, number by number, in a volume."""
        chain = test.data.target_chain
        return test.targets is not None and chain.leading == 0 and chain.gathers(training=False)

    def __call__(self, number: int, at: Box, values: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]] | None:
        """Counts of the prediction `values` (C, *at) of slice set `number`; voxels in gaps do not count. None: there
        are no others. Raises `RunFailed` where the targets cannot be read."""
        grid = self.test.grids[number]
        covered = [_covered(axis, part) for axis, part in zip(grid.axes, at, strict=True)]
        if not all(len(each) for each in covered):
            return None
        metric = self.metric()
        with torch.inference_mode():
            for part in _parts(tuple(map(len, covered))):
                voxels = [each[within] for each, within in zip(covered, part, strict=True)]
                target = self._volume().read(
                    tuple(
                        slice(box.start + each[0], box.start + each[-1] + 1)
                        for box, each in zip(at, voxels, strict=True)
                    )
                )
                metric.update(
                    torch.from_numpy(_at(values, voxels))[None],
                    self._held_against(_at(target, [each - each[0] for each in voxels])),
                )
        return metric.state()

    def figures(self, counts: Mapping[str, Any]) -> dict[str, Any]:
        """What `counts`, added up over regions, say."""
        return self.metric().result(counts)

    def metric(self) -> Metric:
        names = self.test.classes if self.target.kind == "labels" else self.mapped
        return metrics_for((self.channels,), self.target, self.source, self.ignored, names)

    def _held_against(self, raw: np.ndarray[Any, Any]) -> torch.Tensor:
        """A part of the targets' volume, (C, *space), as a batch of one for the metric."""
        if self.target.kind == "mask":
            return torch.from_numpy(to_classes(raw[0], self.mapped, self.ignore_index))[None]
        ending = self.test.data.target_chain.ending(training=False)
        # Of float32 without any ending it is the file's own pages, which torch warns of.
        values = np.require(ending.apply(np.moveaxis(raw, 0, -1)), requirements="W")
        return torch.from_numpy(np.moveaxis(values, -1, 0))[None]

    def _volume(self) -> Volume:
        with _OPENING:
            volume = self.__dict__.get("_opened")
            if volume is None:
                volume = self.test.volume("targets", self.cache_bytes)
                self.__dict__["_opened"] = volume
            return volume

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}


def _covered(axis: Axis, part: slice) -> np.ndarray[Any, Any]:
    """The voxels of `part`, from 0, that some slice has."""
    voxels = np.arange(part.start, part.stop)
    last = np.minimum(voxels // axis.stride, axis.count - 1)
    return np.flatnonzero(voxels - last * axis.stride < axis.size)


def _parts(shape: tuple[int, ...]) -> Iterator[Box]:
    """Boxes of `STRIP` voxels at most, or lines of one voxel."""
    sizes = list(shape)
    for axis, size in enumerate(sizes):
        sizes[axis] = max(1, min(size, size * STRIP // prod(sizes)))
    for start in product(*(range(0, length, size) for length, size in zip(shape, sizes, strict=True))):
        yield tuple(slice(at, at + size) for at, size in zip(start, sizes, strict=True))


def _at(values: np.ndarray[Any, Any], voxels: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """(C, *space) at some ascending places along each axis."""
    if all(len(each) == each[-1] - each[0] + 1 for each in voxels):
        return values[(slice(None), *(slice(each[0], each[-1] + 1) for each in voxels))]
    return values[np.ix_(np.arange(len(values)), *voxels)]


_OPENING = threading.Lock()
