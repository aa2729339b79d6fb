"""The assembled HDF5 file: made whole before the first number is known, so that any number of writers can put their
parts in place, each at its own bytes, without HDF5 and without asking each other.

One contiguous dataset a slice set, (C, *extent), allocated at once and never filled; attributes say where it is from.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rml_core.config import remote
from rml_core.config.problem import RunFailed
from rml_core.config.unfinished import another, remove_leftovers
from rml_core.slicers.grid import Box, SliceGrid

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

Array = np.ndarray[Any, Any]
# The names of attributes, and what they hold.
Said = tuple[tuple[str, str | tuple[int, ...]], ...]

PAGE = 4096
# Datasets begin at a page. The rest of the file is names and attributes.
METADATA = 1 << 16
# Shorter runs are stored through a map of the file, where it is on this machine: a call each would take longer.
SHORT = 1 << 14
# Of Linux, sync_file_range(2): begin to write, wait for nothing.
SYNC_FILE_RANGE_WRITE = 2


@dataclass(frozen=True)
class Assembly:
    """What is assembled from the predictions (`channels`, *sample) of the slices of `grids`, and where.

    `blend`: mean or gaussian. `output`: values, or argmax, the class of the blended values; of one channel it is
    the second of two from `threshold` on. `precision`: single or half. `said`: the file's attributes; `slicers`: of
    each set the section that made it, as JSON.
    """

    path: AnyPath
    grids: tuple[SliceGrid, ...]
    channels: int
    blend: str = "mean"
    output: str = "values"
    precision: str = "single"
    threshold: float = 0.5
    said: Said = ()
    slicers: tuple[str, ...] = ()

    @property
    def dtype(self) -> str:
        return "u1" if self.output == "argmax" else {"single": "<f4", "half": "<f2"}[self.precision]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the datasets, (C, *extent)."""
        channels = 1 if self.output == "argmax" else self.channels
        return tuple((channels, *grid.extent) for grid in self.grids)

    @property
    def nbytes(self) -> int:
        """What the datasets take."""
        return sum(prod(shape) for shape in self.shapes) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Place:
    """A dataset's bytes in the file: C order, from `offset` on."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int


@dataclass(frozen=True)
class Layout:
    """Where each dataset lies in `file`: small, and all that a writer in any process needs."""

    file: str
    places: tuple[Place, ...]

    @classmethod
    def of(cls, file: str | Path) -> Layout:
        """Of a file with contiguous datasets, in the order in which they lie. Raises `OSError`."""
        import h5py

        found: list[Place] = []

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found.append(Place(name, item.shape, item.dtype.str, item.id.get_offset()))

        with h5py.File(file, "r") as opened:
            opened.visititems(note)
        return cls(str(file), tuple(sorted(found, key=lambda place: place.offset)))

    def write(self, number: int, box: Box, array: Array, mapped: bool = False) -> None:
        """Put `array`, (C, *box) of the dataset's type and C order, in its place in dataset `number`.

        Processes may write at once, also on several hosts: bytes that are not of the box are never touched. `mapped`:
        short runs may go through a map of the file, which all the writers' hosts must then be one for.

        Raises:
            OSError: a full disk.
        """
        place = self.places[number]
        bounds = (slice(0, place.shape[0]), *box)
        # From this axis on the box is one run of bytes.
        split = len(bounds) - 1
        while split and bounds[split] == slice(0, place.shape[split]):
            split -= 1
        run = prod(array.shape[split:]) * array.itemsize
        if mapped and run < SHORT:
            _mapped(self.file, place)[bounds] = array
            return
        strides = [prod(place.shape[axis + 1 :]) * array.itemsize for axis in range(len(bounds))]
        first = place.offset + sum(part.start * stride for part, stride in zip(bounds, strides, strict=True))
        data = memoryview(array.reshape(-1).view(np.uint8).data)
        descriptor = os.open(self.file, os.O_WRONLY)
        try:
            at = 0
            leads = zip(array.shape[:split], strides[:split], strict=True)
            for lead in product(*(range(0, size * step, step) for size, step in leads)):
                _write(descriptor, data[at : at + run], first + sum(lead))
                at += run
            _begin_storing(descriptor, first, first + sum(lead) + run)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Let go of this process's map."""
        _mapped.cache_clear()


@lru_cache(maxsize=4)
def _mapped(file: str, place: Place) -> Array:
    """Dataset `place` of `file`, to be written."""
    with open(file, "r+b") as opened:
        length = place.offset + prod(place.shape) * np.dtype(place.dtype).itemsize
        held = mmap.mmap(opened.fileno(), length)
    return np.frombuffer(held, place.dtype, offset=place.offset).reshape(place.shape)


def _begin_storing(descriptor: int, start: int, stop: int) -> None:
    """Let the system bring the bytes to the disk from now on, where it can be told: who waits for the whole file then
    does not wait for long."""
    begin = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if begin is not None:
        begin(descriptor, ctypes.c_int64(start), ctypes.c_int64(stop - start), SYNC_FILE_RANGE_WRITE)


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


class Outfile:
    """The file while it is made: beside its name, as it stands when whole; behind a URL in a folder below `scratch`
    (None: the machine's own).

    Raises:
        RunFailed: there is no room for it, its folder cannot be written to.
    """

    def __init__(self, assembly: Assembly, scratch: Path | None = None):
        self.assembly, self.path = assembly, assembly.path
        self._scratch: str | None = None
        try:
            if isinstance(self.path, Path):
                self._local = self.path
                self._local.parent.mkdir(parents=True, exist_ok=True)
                remove_leftovers(self._local)
            else:
                self._scratch = tempfile.mkdtemp(prefix=f"rml-{os.getpid()}-", dir=scratch)
                self._local = Path(self._scratch, self.path.name)
            self._unfinished = another(self._local)
            lacking = lack_of_room(assembly, scratch)
            if lacking:
                raise RunFailed(lacking)
            # Before HDF5 begins, which cannot say what a disk has said; and then for the bytes that it has made.
            self._unfinished.touch()
            self._reserve(assembly.nbytes + METADATA)
            self.layout = self._create()
            self._reserve(self._unfinished.stat().st_size)
        except OSError as error:
            self.discard()
            raise self.failure(error) from error
        except RuntimeError as error:
            # HDF5 closes a file without the system's own errors, as where no file may be so long.
            self.discard()
            raise RunFailed(f"{self.path}: {error}") from error
        except BaseException:
            self.discard()
            raise

    @property
    def local(self) -> Path:
        """The file's name where it is made: beside it there is room for what goes with it."""
        return self._local

    def failure(self, error: OSError) -> RunFailed:
        """What is said when the file cannot be written."""
        return RunFailed(f"{self.path}: {error.strerror or error}")

    def appear(self) -> None:
        """Put the whole file under its name; what had the name is gone only then. Raises `RunFailed`."""
        self.layout.release()
        try:
            _sync(self._unfinished)
            os.replace(self._unfinished, self._local)
            if isinstance(self.path, Path):
                _sync(self._local.parent)
            else:
                remote.put(self._local, self.path)
        except OSError as error:
            raise self.failure(error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Leave nothing that is not whole."""
        if hasattr(self, "layout"):
            self.layout.release()
        if hasattr(self, "_unfinished"):
            with suppress(OSError):
                self._unfinished.unlink(missing_ok=True)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _create(self) -> Layout:
        import h5py

        assembly = self.assembly
        places = []
        with h5py.File(self._unfinished, "w", alignment_threshold=PAGE, alignment_interval=PAGE) as file:
            for name, value in assembly.said:
                file.attrs[name] = value
            for grid, shape, section in zip(
                assembly.grids, assembly.shapes, assembly.slicers or [""] * len(assembly.grids), strict=True
            ):
                # The same predictions are the same bytes, whenever they were made.
                made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                made.set_layout(h5py.h5d.CONTIGUOUS)
                made.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                made.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                made.set_obj_track_times(False)
                linked = h5py.h5p.create(h5py.h5p.LINK_CREATE)
                linked.set_create_intermediate_group(True)
                linked.set_char_encoding(h5py.h5t.CSET_UTF8)
                kind = h5py.h5t.py_create(np.dtype(assembly.dtype), logical=True)
                space = h5py.h5s.create_simple(shape)
                dataset = h5py.Dataset(h5py.h5d.create(file.id, None, kind, space, made))
                h5py.h5o.link(dataset.id, file.id, grid.name.encode(), lcpl=linked)
                if section:
                    dataset.attrs["slicer"] = section
                for number, label in enumerate(("channel", *axis_names(len(shape) - 1))):
                    dataset.dims[number].label = label
                places.append(Place(grid.name, shape, assembly.dtype, dataset.id.get_offset()))
        return Layout(str(self._unfinished), tuple(places))

    def _reserve(self, size: int) -> None:
        """Without its bytes the file would only be long: a disk that others fill meanwhile is told now."""
        descriptor = os.open(self._unfinished, os.O_WRONLY)
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            # Some network file systems cannot.
            if error.errno not in CANNOT:
                raise
        finally:
            os.close(descriptor)


CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def lack_of_room(assembly: Assembly, scratch: Path | None = None) -> str:
    """What there is to say where the disk has less room than the file needs; "": there is room. `scratch`: where it is
    made, where that is not beside its name. Raises `OSError`."""
    here = isinstance(assembly.path, Path)
    folder = assembly.path.parent if isinstance(assembly.path, Path) else scratch or Path(tempfile.gettempdir())
    disk = os.statvfs(folder)
    needed, free = assembly.nbytes + METADATA, disk.f_bavail * disk.f_frsize
    if needed <= free:
        return ""
    where = str(assembly.path) if here else f"{assembly.path}, which is made in {folder}"
    return f"{where}: {_size(needed)} are needed, {_size(free)} are free"


def axis_names(count: int) -> tuple[str, ...]:
    """What the axes of space are called, as in the picture of sections: which of them is up only the user knows."""
    return tuple(f"axis {number}" for number in range(count))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(count: int) -> str:
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"
