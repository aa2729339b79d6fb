"""NumPy files: `.npy`, a sample each, and `.npz`, an array a sample. Nothing that is pickled is ever loaded.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import math
import os
import struct
import threading
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from rml_core.config import remote
from rml_core.config.problem import RunFailed
from rml_core.data.arrays import as_sample, header_of, not_inside, reason
from rml_core.data.files import Form, Header, Item, Reader
from rml_core.data.handles import opened
from rml_core.data.pairing import natural_order

if TYPE_CHECKING:
    import numpy as np

    from rml_core.data.volumes import Source

MEMBER = ".npy"
# NumPy reads a header with ast.parse, which fails now and then where threads do so at once: CPython 3.11 and 3.12 count
# the depth of the tree for all of them together (github.com/python/cpython/issues/106905).
_PARSING = threading.Lock()
_ZIP = b"PK"
# Where the local header of a member has the lengths of what follows it: its name, and more.
_LENGTHS = 26
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    KeyError,
    MemoryError,
)


class Npy(Reader):
    what: ClassVar[str] = "NumPy files (.npy, .npz)"
    one_each: ClassVar[str] = 'np.savez("x.npz", *x)'

    def counts(self, name: str) -> bool:
        return Path(name).suffix.lower() in (".npy", ".npz")

    def contents(self, file: str, inside: str) -> list[tuple[str, Header]]:
        try:
            with remote.opened(file) as stream:
                start = stream.read(2)
                stream.seek(0)
                if start == _ZIP:
                    return _members(stream, file, inside)
                if inside:
                    raise RunFailed(f"{file}: has no {inside}: a .npy file is one array")
                size = stream.seek(0, os.SEEK_END)
                stream.seek(0)
                return [("", _header(stream, Item(file), size))]
        except OSError as error:
            raise RunFailed(f"{file}: cannot be read: {error.strerror or reason(error)}") from None
        except _DAMAGED as error:
            raise RunFailed(f"{file}: {_said(error)}") from None

    def read(self, item: Item, form: Form) -> np.ndarray:
        try:
            if item.inside:
                archive = opened(("npz", item.file), lambda: _Archive(item.file))
                with archive.zip.open(item.inside + MEMBER) as member:
                    array = _array(member)
            else:
                with remote.opened(item.file) as stream:
                    array = _array(stream)
        except _DAMAGED as error:
            raise RunFailed(f"{item}: cannot be read: {reason(error)}") from None
        return as_sample(array, item, form)

    def volume(self, item: Item, cache_bytes: int) -> Source:
        from rml_core.data.mapped import lying_at

        try:
            with remote.opened(item.file) as stream:
                start, size = _place(stream, item) if item.inside else (0, stream.seek(0, os.SEEK_END))
                stream.seek(start)
                shape, fortran, dtype, offset = _checked(stream, item, size, start)
        except OSError as error:
            raise RunFailed(f"{item}: cannot be read: {error.strerror or reason(error)}") from None
        except _DAMAGED as error:
            raise RunFailed(f"{item}: {_said(error)}") from None
        return lying_at(item, offset, shape, dtype, fortran, cache_bytes)


class _Archive:
    """An open `.npz`."""

    def __init__(self, file: str) -> None:
        self._stream = remote.opened(file)
        self.zip = zipfile.ZipFile(self._stream)

    def close(self) -> None:
        self.zip.close()
        self._stream.close()


def _said(error: Exception) -> str:
    if reason(error) == "File is not a zip file":
        return "is cut short, or no .npz file"
    if reason(error).startswith("EOF:"):
        return "is cut short: write or copy it again"
    return f"cannot be read: {reason(error)}"


def _members(stream: IO[bytes], file: str, inside: str) -> list[tuple[str, Header]]:
    with zipfile.ZipFile(stream) as archive:
        names = [name.removesuffix(MEMBER) for name in archive.namelist() if name.endswith(MEMBER)]
        if not names:
            raise RunFailed(f"{file}: has no arrays")
        if inside and inside not in names:
            raise not_inside(file, inside, names)
        found = []
        for name in [inside] if inside else natural_order(names):
            with archive.open(name + MEMBER) as member:
                size = archive.getinfo(name + MEMBER).file_size
                found.append((name, _header(member, Item(file, name), size)))
        return found


def _array(stream: IO[bytes]) -> np.ndarray:
    """The array that begins where `stream` stands.

    Raises:
        EOFError: it ends before the array does.
    """
    import numpy as np

    shape, fortran_order, dtype = _described(stream, np.lib.format.read_magic(stream))
    if dtype.hasobject:
        raise ValueError("holds Python objects")
    array = np.empty(shape[::-1] if fortran_order else shape, dtype)
    rest = array.reshape(-1).view(np.uint8).data
    while rest.nbytes:
        count = stream.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError("is cut short")
        rest = rest[count:]
    return array.T if fortran_order else array


def _described(stream: IO[bytes], version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type, by the header of an array.

    Raises:
        KeyError: there is no such version of headers, or it is the third, which differs in field names alone: no
            sample has fields.
    """
    import numpy as np

    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    read = readers[version]
    with _PARSING:
        return read(stream)


def _place(stream: IO[bytes], item: Item) -> tuple[int, int]:
    """Where the array of an `.npz` begins in the file, and how many bytes it takes. Raises `RunFailed` where it is
    compressed: such a stream is read from its beginning."""
    with zipfile.ZipFile(stream) as archive:
        member = archive.getinfo(item.inside + MEMBER)
    if member.compress_type != zipfile.ZIP_STORED:
        raise RunFailed(
            f"{item}: is compressed as a whole, and slices are read from any place of it: save it with np.save, or "
            "np.savez"
        )
    stream.seek(member.header_offset + _LENGTHS)
    name, extra = struct.unpack("<HH", stream.read(4))
    return member.header_offset + _LENGTHS + 4 + name + extra, member.file_size


def _header(stream: IO[bytes], item: Item, size: int) -> Header:
    """The header of the array that takes the `size` bytes of `stream`."""
    shape, _, dtype, _ = _checked(stream, item, size)
    return header_of(item, shape, dtype)


def _checked(
    stream: IO[bytes], item: Item, size: int, start: int = 0
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran's order, type, and where the numbers begin, of the array that takes the `size` bytes of
    `stream` from `start` on, where it stands. Raises `RunFailed` where they are no sample, or not all there."""
    import numpy as np

    try:
        version = np.lib.format.read_magic(stream)
    except ValueError:
        raise RunFailed(f"{item}: is no NumPy file: write it with np.save") from None
    try:
        shape, fortran, dtype = _described(stream, version)
    except KeyError:
        raise RunFailed(f"{item}: holds records: save each field as an array of its own") from None
    header = header_of(item, shape, dtype)
    whole = stream.tell() - start + math.prod(shape) * dtype.itemsize
    if size < whole:
        raise RunFailed(f"{item}: is cut short: {shape} of {header.dtype} takes {whole} bytes, and there are {size}")
    return shape, fortran, dtype, stream.tell()


READER = Npy()
