"""HDF5 files: each dataset a sample, in groups of any depth."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rml_core.config import remote, roots
from rml_core.config.paths import is_url
from rml_core.config.problem import RunFailed
from rml_core.data.arrays import as_sample, header_of, not_inside, reason
from rml_core.data.files import Form, Header, Item, Reader
from rml_core.data.handles import opened
from rml_core.data.pairing import natural_order

if TYPE_CHECKING:
    import numpy as np

    from rml_core.data.volumes import Source

SUFFIXES = (".h5", ".hdf5", ".hdf", ".hd5", ".he5")


class Hdf5(Reader):
    what: ClassVar[str] = "HDF5 files (.h5, .hdf5)"
    one_each: ClassVar[str] = 'file[f"x/{i}"] = x[i]'

    def counts(self, name: str) -> bool:
        return Path(name).suffix.lower() in SUFFIXES

    def contents(self, file: str, inside: str) -> list[tuple[str, Header]]:
        import h5py

        opened_file = OpenFile(file)
        try:
            h5 = opened_file.h5
            top = h5.get(inside) if inside else h5
            if isinstance(top, h5py.Dataset):
                return [(inside, _header(top.id, Item(file, inside), h5))]
            if top is None:
                raise not_inside(file, inside, [name for name, _ in _datasets(h5)])
            found: list[tuple[str, Header]] = []
            failures: list[str] = []
            for name, dataset in _datasets(top):
                whole = f"{inside}/{name}".lstrip("/")
                try:
                    found.append((whole, _header(dataset, Item(file, whole), h5)))
                except RunFailed as error:
                    failures.append(str(error))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise RunFailed(f"{file}: cannot be read: {said(error)}") from None
        finally:
            opened_file.close()
        if failures:
            more = f"; nor do {len(failures) - 1} more datasets fit" if len(failures) > 1 else ""
            way_out = f"; or name one that fits, as {Item(file, natural_order(dict(found))[0])}" if found else ""
            raise RunFailed(failures[0] + more + way_out)
        if not found:
            raise RunFailed(f"{Item(file, inside)}: has no datasets")
        headers = dict(found)
        return [(name, headers[name]) for name in natural_order(headers)]

    def read(self, item: Item, form: Form) -> np.ndarray:
        import numpy as np
        from h5py import h5d, h5s

        try:
            file = opened(("hdf5", item.file), lambda: OpenFile(item.file))
            dataset = h5d.open(file.h5.id, item.inside.encode())
            refuse_elsewhere(dataset, file.h5, item)
            array = np.empty(dataset.shape, dataset.dtype)
            dataset.read(h5s.ALL, h5s.ALL, array)
        except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as error:
            raise RunFailed(f"{item}: cannot be read: {said(error)}") from None
        return as_sample(array, item, form)

    def volume(self, item: Item, cache_bytes: int) -> Source:
        from rml_core.data.hdf5_volumes import source_of

        file = OpenFile(item.file)
        try:
            return source_of(file, item, cache_bytes)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            file.close()
            raise RunFailed(f"{item}: cannot be read: {said(error)}") from None
        except BaseException:
            file.close()
            raise


def _datasets(top: Any) -> list[tuple[str, Any]]:
    """(path below the group `top`, dataset), by h5py's lower half: the upper one takes twice the time."""
    from h5py import h5d, h5o

    found: list[tuple[str, Any]] = []

    def visit(name: bytes, about: Any) -> None:
        if about.type == h5o.TYPE_DATASET:
            found.append((name.decode(), h5d.open(top.id, name)))

    h5o.visit(top.id, visit, info=True)
    return found


def refuse_elsewhere(dataset: Any, h5: Any, item: Item) -> None:
    """Raises `RunFailed` where the numbers of a dataset lie in other files, which `roots.VARIABLE` knows nothing of: by
    a link, or as parts that its own file names."""
    if roots.roots() is None:
        return
    from h5py import h5d, h5f

    plist = dataset.get_create_plist()
    linked = h5f.get_name(dataset) != h5f.get_name(h5.id)
    if linked or plist.get_external_count() or plist.get_layout() == h5d.VIRTUAL:
        raise RunFailed(
            f"{item}: lies in another file, which is not read where {roots.VARIABLE} is set: copy it into one file"
        )


def _header(dataset: Any, item: Item, h5: Any) -> Header:
    from h5py import h5s

    refuse_elsewhere(dataset, h5, item)
    empty = dataset.get_space().get_simple_extent_type() == h5s.NULL
    return header_of(item, None if empty else dataset.shape, dataset.dtype)


class OpenFile:
    """An HDF5 file open for reading; other programs may write to it meanwhile."""

    def __init__(self, file: str) -> None:
        """Raises `RunFailed`."""
        import h5py

        self._stream = None
        try:
            if is_url(file):
                self._stream = remote.opened(file)
                self.h5 = h5py.File(self._stream, "r")
            else:
                self.h5 = h5py.File(roots.check(file), "r", locking=False)
                roots.check_open(self.h5.id.get_vfd_handle(), file)
        except OSError as error:
            text = said(error)
            if "signature not found" in text:
                raise RunFailed(f"{file}: is no HDF5 file") from None
            raise RunFailed(f"{file}: cannot be read: {text}") from None

    @property
    def size(self) -> int:
        """How long a file of this machine is now; 0 behind a URL."""
        return os.fstat(self.h5.id.get_vfd_handle()).st_size if self._stream is None else 0

    def close(self) -> None:
        self.h5.close()
        if self._stream is not None:
            self._stream.close()


def said(error: Exception) -> str:
    """HDF5 says what it was doing, and in parentheses why that went wrong."""
    text = reason(error)
    if isinstance(error, MemoryError):
        return text
    why = re.search(r"\((.*)\)", text)
    return why[1] if why else text


READER = Hdf5()
