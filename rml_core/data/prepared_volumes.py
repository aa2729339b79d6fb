"""Volumes prepared for slicing: decoded once into one file that is mapped, or used where they lie."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from rml_core.config.problem import RunFailed
from rml_core.data.chunked import runs, whole_chunks
from rml_core.data.files import Form, Item
from rml_core.data.store import Single
from rml_core.data.volumes import Box, Volume, opened_volume

# A job reads blocks of about so many bytes, and there are so many jobs at most.
BLOCK = 1 << 25
JOBS = 256
# More distinct values than these are no classes.
MOST_VALUES = 1 << 16
# So many values at a time are looked at for distinct ones.
PIECE = 1 << 16

Map = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Side:
    """One volume of a survey. `name`: inputs or targets."""

    name: str
    item: Item
    form: Form


@dataclass(frozen=True)
class Job:
    """The blocks `first` to before `last` of the volume at `item`; `place`: where they are put, None: nowhere."""

    item: Item
    form: Form
    block: tuple[int, ...]
    first: int
    last: int
    place: Single | None


@dataclass(frozen=True)
class Found:
    """How many values are NaN, of masks which values there are, and how many bytes were looked at."""

    nan: int
    values: frozenset[int]
    nbytes: int = 0


def run_job(job: Job) -> Found:
    """Read the blocks, look at their values, and put them in their place. Raises `RunFailed`, `OSError`."""
    volume = opened_volume(job.item, job.form, 0)
    nan, values, nbytes = 0, set[int](), 0
    file = None if job.place is None else os.open(job.place.path, os.O_WRONLY)
    try:
        for number in range(job.first, job.last):
            box = _box(volume.shape, job.block, number)
            array = volume.read(box[1:], box[0])
            nbytes += array.nbytes
            if array.dtype.kind == "f":
                nan += _nans(array)
            if job.form.mask:
                _distinct(array, values, job.item)
            elif job.place is None:
                # So that the pages of a mapped file are in memory.
                array.max()
            if job.place is not None and file is not None:
                job.place.write(file, box, array)
    finally:
        volume.close()
        if file is not None:
            os.close(file)
    return Found(nan, frozenset(values), nbytes)


def build(sides: Sequence[Side], preload: bool, folder: Path, map: Map) -> dict[str, Any]:  # noqa: A002
    """Read what has to be read of each side; with `preload`, put into `folder` what cannot be mapped where it lies.

    Gives the entries of the manifest: `mask_values`, `nan` (a number for each side whose values were read), `in_place`
    (what each side that is used where it lies was then). Raises `RunFailed`, `OSError`.
    """
    nan: dict[str, int] = {}
    values: dict[int, str] = {}
    in_place: dict[str, Any] = {}
    for side in sides:
        volume = opened_volume(side.item, side.form, 0)
        place = None
        try:
            if preload and volume.chunks is not None:
                place = _place(folder, side, volume)
            else:
                in_place[side.name] = {"form": asdict(side.form), "identity": identity(side.form, side.item)}
            jobs = list(_jobs(side, volume, place)) if preload or side.form.mask else []
        finally:
            volume.close()
        found: list[Found] = list(map(run_job, jobs))
        if jobs:
            nan[side.name] = sum(each.nan for each in found)
        for value in set[int]().union(*(each.values for each in found)):
            values.setdefault(value, str(side.item))
        if len(values) > MOST_VALUES:
            raise _too_many(side.item)
    return {"mask_values": sorted(values.items()), "nan": nan, "in_place": in_place}


def identity(form: Form, item: Item) -> Any:
    """As long as it is the same, so is the file; as JSON has it. Raises `OSError`."""
    path, *state = form.reader.identity(item.file)
    return [path, *state]


def _place(folder: Path, side: Side, volume: Volume) -> Single:
    free = shutil.disk_usage(folder).free
    try:
        return Single.create(folder, side.name, volume.shape, volume.dtype)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        takes = _said(prod(volume.shape) * volume.dtype.itemsize)
        raise RunFailed(
            f"{side.item} takes {takes} decoded, and {folder.parent} has {_said(free)} free: make room there, set "
            "XDG_CACHE_HOME to another folder, or leave out preload"
        ) from None


def _said(size: int) -> str:
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} bytes"


def _jobs(side: Side, volume: Volume, place: Single | None) -> Iterator[Job]:
    itemsize = volume.dtype.itemsize
    block = (
        whole_chunks(volume.chunks, volume.shape, itemsize, BLOCK)
        if volume.chunks is not None
        else runs(volume.shape, itemsize, BLOCK, volume.fortran)
    )
    count = prod(_counts(volume.shape, block))
    step = -(-count // JOBS)
    for first in range(0, count, step):
        yield Job(side.item, side.form, block, first, min(first + step, count), place)


def _counts(shape: tuple[int, ...], block: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-length // size) for length, size in zip(shape, block, strict=True))


def _box(shape: tuple[int, ...], block: tuple[int, ...], number: int) -> Box:
    """Block `number`, in C order."""
    place = np.unravel_index(number, _counts(shape, block))
    return tuple(
        slice(int(at) * size, min((int(at) + 1) * size, length))
        for at, size, length in zip(place, block, shape, strict=True)
    )


def _nans(array: np.ndarray) -> int:
    # The minimum is NaN where any value is, and takes a quarter of the time.
    return int(np.count_nonzero(np.isnan(array))) if array.size and np.isnan(array.min()) else 0


def _distinct(mask: np.ndarray, values: set[int], item: Item) -> None:
    """Add the values of `mask` to `values`."""
    flat = mask.reshape(-1)
    for at in range(0, flat.size, PIECE):
        piece = flat[at : at + PIECE]
        low, high = int(piece.min()), int(piece.max())
        if low == high:
            values.add(low)
        elif high - low < PIECE:
            values.update((np.flatnonzero(np.bincount(piece.astype(np.int64) - low)) + low).tolist())
        else:
            values.update(np.unique(piece).tolist())
        if len(values) > MOST_VALUES:
            raise _too_many(item)


def _too_many(item: Item) -> RunFailed:
    return RunFailed(
        f"{item}: a mask has a value for each class, and this one has more than {MOST_VALUES} of them; if they number "
        "objects, make them 0 and 1 first"
    )
