"""HDF5 files: each dataset a sample, in groups of any depth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from rml_core.config import remote
from rml_core.config.paths import is_url
from rml_core.config.problem import RunFailed
from rml_core.data.arrays import as_sample, header_of, not_inside, reason
from rml_core.data.files import Form, Header, Item, Reader
from rml_core.data.handles import opened
from rml_core.data.pairing import natural_order

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".h5", ".hdf5", ".hdf", ".hd5", ".he5")


class Hdf5(Reader):
    what: ClassVar[str] = "HDF5 files (.h5, .hdf5)"

    def counts(self, name: str) -> bool:
        return Path(name).suffix.lower() in SUFFIXES

    def contents(self, file: str, inside: str) -> list[tuple[str, Header]]:
        import h5py

        opened_file = _File(file)
        try:
            h5 = opened_file.h5
            top = h5.get(inside) if inside else h5
            if isinstance(top, h5py.Dataset):
                return [(inside, header_of(Item(file, inside), top.shape, top.dtype))]
            found: dict[str, Header | RunFailed] = {}

            def visit(name: str, node: Any) -> None:
                if isinstance(node, h5py.Dataset):
                    try:
                        found[name] = header_of(Item(file, name), node.shape, node.dtype)
                    except RunFailed as error:
                        found[name] = error

            if top is None:
                h5.visititems(visit)
                raise not_inside(file, inside, list(found))
            top.visititems(visit)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise RunFailed(f"{file}: cannot be read: {_said(error)}") from None
        finally:
            opened_file.close()
        if not found:
            raise RunFailed(f"{Item(file, inside)}: has no datasets")
        failures = [str(found[name]) for name in natural_order(found) if isinstance(found[name], RunFailed)]
        if failures:
            more = f"; nor do {len(failures) - 1} more datasets fit" if len(failures) > 1 else ""
            raise RunFailed(failures[0] + more)
        return [(f"{inside}/{name}".lstrip("/"), found[name]) for name in natural_order(found)]  # type: ignore[misc]

    def read(self, item: Item, form: Form) -> np.ndarray:
        import numpy as np

        try:
            file = opened(("hdf5", item.file), lambda: _File(item.file))
            array = np.asarray(file.h5[item.inside][()])
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise RunFailed(f"{item}: cannot be read: {_said(error)}") from None
        return as_sample(array, item, form)


class _File:
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
                self.h5 = h5py.File(file, "r", locking=False)
        except OSError as error:
            said = _said(error)
            if "signature not found" in said:
                raise RunFailed(f"{file}: is no HDF5 file") from None
            raise RunFailed(f"{file}: cannot be read: {said}") from None

    def close(self) -> None:
        self.h5.close()
        if self._stream is not None:
            self._stream.close()


def _said(error: Exception) -> str:
    """HDF5 says what it was doing, and in parentheses why that went wrong."""
    text = reason(error)
    why = re.search(r"\((.*)\)", text)
    return why[1] if why else text


READER = Hdf5()
