"""Zarr stores, format 2 or 3: a folder, each array of which is a sample, in groups of any depth."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
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

    from rml_core.data.volumes import Source

# The files of which one makes a folder a store, of format 3 or 2.
MARKS = ("zarr.json", ".zarray", ".zgroup")
# How the names of codecs begin that are not installed with Zarr, and the packages that have them.
CODECS = {
    "imagecodecs_": "imagecodecs",
    "zfpy": "numcodecs[zfpy]",
    "pcodec": "numcodecs[pcodec]",
    "msgpack2": "numcodecs[msgpack]",
    "crc32c": "numcodecs[crc32c]",
}


class Zarr(Reader):
    what: ClassVar[str] = "Zarr stores"
    one_each: ClassVar[str] = 'group[f"x/{i}"] = x[i]'

    def counts(self, name: str) -> bool:
        return False

    def is_store(self, names: Iterable[str]) -> bool:
        return not set(MARKS).isdisjoint(names)

    def contents(self, file: str, inside: str) -> list[tuple[str, Header]]:
        import zarr

        top = _node(file, "")
        try:
            arrays = dict(_arrays(top))
        except Exception as error:  # whatever zarr, its codecs and JSON say of damaged metadata
            raise RunFailed(f"{file}: {_said(error)}") from None
        if inside:
            below = {name: array for name, array in arrays.items() if f"{name}/".startswith(f"{inside}/")}
            if not below:
                raise not_inside(file, inside, [name for name in arrays if name])
            arrays = below
        if not arrays:
            raise RunFailed(f"{file}: has no arrays")
        assert all(isinstance(array, zarr.Array) for array in arrays.values())
        return [
            (name, header_of(Item(file, name), arrays[name].shape, arrays[name].dtype))
            for name in natural_order(arrays)
        ]

    def read(self, item: Item, form: Form) -> np.ndarray:
        import numpy as np

        array = opened(("zarr", item), lambda: _node(item.file, item.inside))
        try:
            values = np.asarray(array[...])
        except Exception as error:  # whatever codecs say of a damaged chunk
            raise RunFailed(f"{item}: {_said(error)}") from None
        return as_sample(values, item, form)

    def volume(self, item: Item, cache_bytes: int) -> Source:
        from rml_core.data.zarr_volumes import source_of

        return source_of(_node(item.file, item.inside), item, cache_bytes)

    def identity(self, file: str) -> Any:
        """Of every file of the store."""
        if is_url(file):
            parts = [remote.identity(remote.below(file, name)) for name in remote.find(file)]
        else:
            parts = [remote.identity(entry.path) for entry in _files(file)]
        return file, hashlib.blake2b(repr(sorted(parts)).encode(), digest_size=12).hexdigest()


def _files(folder: str) -> Iterable[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path)
            else:
                yield entry


def _node(file: str, inside: str) -> Any:
    import zarr
    from numcodecs.registry import codec_registry  # type: ignore[import-untyped]

    # The one codec whose decoding runs what the file says.
    codec_registry.pop("pickle", None)
    try:
        store: Any = file
        if not is_url(file):
            from rml_core.data.zarr_folder import Folder

            # As a folder by itself: a name with `::` in it would lead elsewhere.
            store = Folder(file, read_only=True)
        return zarr.open(store, mode="r", path=inside or None)
    except Exception as error:  # as above
        if not any(remote.kind(remote.below(file, mark)) for mark in MARKS):
            raise RunFailed(f"{file}: is no Zarr store") from None
        raise RunFailed(f"{file}: {_said(error)}") from None


def _said(error: Exception) -> str:
    """What Zarr says, or of a codec that is missing how to get it: Zarr and numcodecs have an error of their own for
    that, of the same name."""
    if type(error).__name__ != "UnknownCodecError":
        return f"cannot be read: {reason(error)}"
    name = reason(error).rpartition(":")[2].strip(" '")
    package = next((package for start, package in CODECS.items() if name.startswith(start)), "")
    remedy = f"pip install {package}" if package else "install the package that has it"
    return f"is compressed with {name}, which is not installed: {remedy}"


def _arrays(top: Any) -> Iterable[tuple[str, Any]]:
    """Each array below `top` by its path; "": `top` itself is one."""
    import zarr

    if isinstance(top, zarr.Array):
        yield "", top
        return
    for name, node in top.members(max_depth=None):
        if isinstance(node, zarr.Array):
            yield name, node


READER = Zarr()
