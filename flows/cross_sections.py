"""Sections through an assembled prediction, and through what it was made of: a few planes are read, never a volume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rml_core.config import remote
from rml_core.config.limits import memory_limit
from rml_core.data.masks import Mapped, to_classes
from rml_core.slicers.grid import Axis, Box, SliceGrid

if TYPE_CHECKING:
    from rml_core.check import Checked
    from rml_core.config.paths import AnyPath
    from rml_core.data.prepared import Prepared

# So many pixels a side a section is shown with at most.
SCREEN = 400
# A chunked volume is read in parts of about so many bytes, and keeps no more of what it has decoded; each is no more
# than its share of what a run may hold.
PART_BYTES = 16 << 20
CACHE_BYTES = 64 << 20
SHARE = 8
# Of the classes in an assembled file: the voxel is in a gap between slices.
GAP = 255


class Readable(Protocol):
    """An array (C, *space) that is read by boxes of its space; `chunks` (C, *space): what is decoded as a whole."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def chunks(self) -> tuple[int, ...] | None: ...
    def read(self, box: Box) -> np.ndarray: ...


@dataclass(frozen=True)
class Cut:
    """Where a section lies: at `index` of `axis`; the other axes run down and to the right. `axis` None: the array has
    no more than two axes, and all of it is seen."""

    axis: int | None
    index: int
    rank: int

    @property
    def place(self) -> str:
        """As it would be written in NumPy: `[98, :, :]`."""
        return "[" + ", ".join(str(self.index) if axis == self.axis else ":" for axis in range(self.rank)) + "]"

    @property
    def shown(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(self.rank) if axis != self.axis)


@dataclass(frozen=True)
class Section:
    """What is seen of a set at `cut`: arrays (h, w), or (w,) of lines, every `steps`-th voxel; None: there is none.

    Classes are numbers from 0; NaN is what counts for nothing: gaps between slices, voxels without a class.
    """

    cut: Cut
    steps: tuple[int, ...]
    input: np.ndarray
    target: np.ndarray | None
    prediction: np.ndarray
    error: np.ndarray | None


@dataclass(frozen=True)
class SetSections:
    """The sections of one slice set, whose prediction has `shape` (C, *space). `channels`: of which channel a picture
    is, where there are several: by what it is a picture of."""

    name: str
    shape: tuple[int, ...]
    sections: tuple[Section, ...]
    channels: dict[str, str]


@dataclass(frozen=True)
class Meaning:
    """What the prediction's numbers are. `classes`: how many classes they tell apart, None: they are values. `half`:
    from where on the one channel of two classes means the second one. `mapped`, `ignore_index`: as for
    `masks.to_classes`."""

    classes: int | None = None
    half: float = 0.5
    mapped: Mapped = None
    ignore_index: int | None = None

    @classmethod
    def of(cls, checked: Checked, mapped: Mapped) -> Meaning:
        """Of a run's predictions: classes where the targets are, the file holds them, or the network ends in them."""
        file, network = checked.run.file, checked.network
        outputs = network.output_shape[0] or 1
        distribution = outputs > 1 and network.last_activation in ("softmax", "log_softmax")
        masks = checked.target is not None and checked.target.kind == "mask"
        if not masks and file.data.hdf5_output != "argmax" and (checked.target is not None or not distribution):
            return cls()
        from rml_core.engine.metrics import threshold_of

        source = checked.fitted.source if checked.fitted is not None else network.last_activation
        half = threshold_of(source) if masks else 0.5
        return cls(max(outputs, 2), half, mapped, getattr(file.loss, "ignore_index", None))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, where they stand for other values of the masks."""
        return tuple(f"value {value}" for value in self.mapped or ())


def sections_of(path: AnyPath, test: Prepared, meaning: Meaning) -> Iterator[SetSections]:
    """The sections of each set of the assembled file `path`, which was made of `test`.

    Raises `RunFailed` or `OSError` where something can no longer be read.
    """
    kept = min(CACHE_BYTES, memory_limit() // SHARE)
    with ExitStack() as stack:
        inputs = stack.enter_context(closing(test.volume("inputs", kept)))
        targets = stack.enter_context(closing(test.volume("targets", kept))) if test.target is not None else None
        for grid in test.grids:
            with _Dataset(path, grid.name) as prediction:
                yield sections_of_set(grid, inputs, targets, prediction, meaning)


def sections_of_set(
    grid: SliceGrid, inputs: Readable, targets: Readable | None, prediction: Readable, meaning: Meaning
) -> SetSections:
    """Planes through the middle of what `prediction` covers, from which the same ones of the others are cut."""
    sections = []
    for cut in cuts(grid):
        found, steps = plane(prediction, cut, grid.extent)
        whole, _ = plane(inputs, cut, grid.extent)
        shown = predicted(found, meaning)
        target = error = None
        if targets is not None:
            raw, _ = plane(targets, cut, grid.extent)
            target = _target(raw, meaning)
            error = _error(shown, target, meaning)
        sections.append(Section(cut, steps, whole[0].astype(np.float32), target, shown, error))
    channels = {"input": inputs.shape[0]}
    if meaning.classes is None:
        channels["prediction"] = prediction.shape[0]
        if targets is not None:
            channels["target"] = channels["error"] = targets.shape[0]
    several = {name: f"channel 0 of {count}" for name, count in channels.items() if count > 1}
    return SetSections(grid.name, prediction.shape, tuple(sections), several)


def cuts(grid: SliceGrid) -> tuple[Cut, ...]:
    """Through the middle of what is covered, across each axis; where that is in a gap, through the nearest slice."""
    rank = len(grid.axes)
    if rank < 3:
        return (Cut(None, 0, rank),)
    found = tuple(Cut(number, _middle(axis), rank) for number, axis in enumerate(grid.axes))
    # A line is no picture of a volume.
    areas = tuple(cut for cut in found if all(grid.extent[axis] > 1 for axis in cut.shown))
    return areas or found[:1]


def _middle(axis: Axis) -> int:
    middle = axis.extent // 2
    if axis.covering(middle):
        return middle
    place = min(middle // axis.stride, axis.count - 1)
    ends = [axis.stop(place) - 1, *([axis.start(place + 1)] if place + 1 < axis.count else [])]
    return min(ends, key=lambda voxel: abs(voxel - middle))


def plane(volume: Readable, cut: Cut, extent: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """The plane `cut` of `volume`, as far as `extent`, (C, h, w) or (C, w), and the steps between its voxels: no side
    is longer than the screen. It is read in parts where storage is read by chunks."""
    steps = tuple(-(-extent[axis] // SCREEN) for axis in cut.shown)
    shape = tuple(-(-extent[axis] // step) for axis, step in zip(cut.shown, steps, strict=True))
    out: np.ndarray | None = None
    for part in _parts(volume, cut, extent):
        box: list[slice] = []
        rows: list[slice] = []
        for axis in range(cut.rank):
            if axis == cut.axis:
                box.append(slice(cut.index, cut.index + 1))
                continue
            step = steps[len(rows)]
            start, stop = part[len(rows)]
            first = -(-start // step)
            last = -(-stop // step)
            rows.append(slice(first, last))
            box.append(slice(first * step, min((last - 1) * step + 1, stop)))
        if any(place.stop <= place.start for place in rows):
            continue
        read = volume.read(tuple(box))
        if cut.axis is not None:
            read = read.take(0, axis=cut.axis + 1)
        if out is None:
            out = np.empty((len(read), *shape), read.dtype)
        out[(slice(None), *rows)] = read[(slice(None), *(slice(None, None, step) for step in steps))]
    assert out is not None
    return out, steps


def _parts(volume: Readable, cut: Cut, extent: tuple[int, ...]) -> Iterator[list[tuple[int, int]]]:
    """Parts of a plane, (start, stop) along each of its axes: whole chunks, as many as are easily held."""
    lengths = [extent[axis] for axis in cut.shown]
    if volume.chunks is None:
        yield [(0, length) for length in lengths]
        return
    chunk = volume.chunks[1:]
    sides = [min(chunk[axis], extent[axis]) for axis in cut.shown]
    # Numbers of any kind have 8 bytes or less.
    held, most = 8 * volume.shape[0] * prod(sides), min(PART_BYTES, memory_limit() // SHARE)
    for number in reversed(range(len(sides))):
        more = max(1, min(most // max(held, 1), -(-lengths[number] // sides[number])))
        sides[number], held = sides[number] * more, held * more
    starts = [range(0, length, side) for length, side in zip(lengths, sides, strict=True)]
    for first in starts[0]:
        for second in starts[1] if len(starts) > 1 else [None]:
            begins = [first] if second is None else [first, second]
            yield [(at, min(at + side, length)) for at, side, length in zip(begins, sides, lengths, strict=True)]


def predicted(found: np.ndarray, meaning: Meaning) -> np.ndarray:
    """(C, ...) as what is shown of it (...): classes, or the values of the first channel."""
    if meaning.classes is None:
        return found[0].astype(np.float32)
    if np.issubdtype(found.dtype, np.integer):
        return np.where(found[0] == GAP, np.nan, found[0]).astype(np.float32)
    classes = found.argmax(0) if len(found) > 1 else found[0] >= meaning.half
    return np.where(np.isnan(found[0]), np.nan, classes).astype(np.float32)


def _target(raw: np.ndarray, meaning: Meaning) -> np.ndarray:
    if meaning.classes is None:
        return raw[0].astype(np.float32)
    classes = to_classes(raw[0], meaning.mapped, meaning.ignore_index)
    return np.where(classes < 0, np.nan, classes).astype(np.float32)


def _error(shown: np.ndarray, target: np.ndarray, meaning: Meaning) -> np.ndarray:
    """Prediction minus target; of classes 1 where they differ, else 0."""
    difference = shown - target
    return difference if meaning.classes is None else np.where(np.isnan(difference), np.nan, difference != 0)


class _Dataset:
    """A dataset of an assembled file: contiguous, hence mapped on this machine; behind a URL HDF5 reads it."""

    chunks = None

    def __init__(self, path: AnyPath, name: str):
        self._path, self._name = path, name

    def __enter__(self) -> _Dataset:
        import h5py

        with ExitStack() as stack:
            path = self._path
            opened = path if isinstance(path, Path) else stack.enter_context(remote.opened(path))
            dataset = stack.enter_context(h5py.File(opened, "r"))[self._name]
            self.shape: tuple[int, ...] = dataset.shape
            self._array = dataset
            if isinstance(path, Path):
                self._array = np.memmap(path, dataset.dtype, "r", dataset.id.get_offset(), self.shape)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        del self._array
        self._stack.close()

    def read(self, box: Box) -> np.ndarray:
        return self._array[(slice(None), *box)]
