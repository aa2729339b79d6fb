"""HDF5 datasets read box by box, by how they are stored.

Layouts: https://docs.hdfgroup.org/documentation/hdf5/latest/_l_b_com_dset.html
Filters: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
"""

from __future__ import annotations

import importlib
import itertools
import threading
import zlib
from contextlib import suppress
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from h5py import h5d, h5f, h5s, h5t, h5z

from rml_core.config import remote
from rml_core.config.paths import is_url
from rml_core.config.problem import RunFailed
from rml_core.data.arrays import reason
from rml_core.data.chunked import Chunked, Taken, runs, whole_chunks
from rml_core.data.hdf5 import OpenFile, refuse_elsewhere, said
from rml_core.data.mapped import lying_at
from rml_core.data.volumes import Box, Source

if TYPE_CHECKING:
    from rml_core.data.files import Item

# What is not chunked and cannot be mapped is read in blocks of so many bytes; smaller chunks are read several at once.
BLOCK, LEAST = 1 << 22, 1 << 18
# Chunks below this are decoded by HDF5, which is quicker where there is little to decode.
DIRECT = 1 << 13
# Behind a URL the places of so many chunks at most are held in memory, to ask for several at once.
MOST_LISTED = 1 << 18

DEFLATE, SHUFFLE = h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE
# The filters that the package hdf5plugin brings, and what they are called where a file does not say it.
PLUGINS = {
    307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32017: "sz",
    32018: "fcidecomp", 32024: "sz3", 32026: "blosc2", 32028: "sperr",
}  # fmt: skip


def source_of(file: OpenFile, item: Item, cache_bytes: int) -> Source:
    """The dataset `item` of the open `file`, which is closed with what is given, or at once where it is mapped.

    Raises `RunFailed` where a filter is missing, and what h5py raises.
    """
    dataset = h5d.open(file.h5.id, item.inside.encode())
    refuse_elsewhere(dataset, file.h5, item)
    shape, dtype = dataset.shape, dataset.dtype
    plist = dataset.get_create_plist()
    chunked = plist.get_layout() == h5d.CHUNKED
    as_in_memory = _is_as_in_memory(dataset)
    if plist.get_layout() == h5d.CONTIGUOUS and as_in_memory and _is_inside(dataset, plist, file):
        offset = dataset.get_offset()
        file.close()
        return lying_at(item, offset, shape, dtype, False, cache_bytes)
    check_filters(plist, item)
    storage = _Storage(file, dataset, item, _decoder(plist, dtype) if chunked and as_in_memory else None)
    if chunked:
        block = whole_chunks(plist.get_chunk(), shape, dtype.itemsize, LEAST)
    else:
        block = runs(shape, dtype.itemsize, BLOCK)
    return Chunked(shape, dtype, block, storage.fetch, storage.taken, cache_bytes, is_url(item.file), storage.close)


def check_filters(plist: Any, item: Item) -> None:
    """Raises `RunFailed` naming the first filter of a dataset that nothing here decodes."""
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if h5z.filter_avail(code):
            continue
        with suppress(ImportError):
            importlib.import_module("hdf5plugin")
        if h5z.filter_avail(code):
            continue
        called = PLUGINS.get(code) or name.decode(errors="replace").rstrip("\0") or "a filter"
        remedy = (
            "pip install hdf5plugin"
            if code in PLUGINS
            else "install its plugin, and name its folder in HDF5_PLUGIN_PATH"
        )
        raise RunFailed(f"{item}: is compressed with {called} (HDF5 filter {code}), which is not installed: {remedy}")


class _Decoder:
    """What makes the numbers of a chunk out of its bytes, where that is zlib's business and NumPy's: HDF5 decodes one
    chunk at a time, for all threads together."""

    def __init__(self, chunk: tuple[int, ...], dtype: np.dtype[Any], filters: list[int]) -> None:
        self.chunk = chunk
        self._dtype, self._filters = dtype, filters
        self._size = prod(chunk) * dtype.itemsize

    def decode(self, data: bytes | memoryview, skipped: int, partial: bool) -> np.ndarray | None:
        """The chunk, of which the filters whose bits are set in `skipped` were left out; None: its bytes are something
        else. `partial`: it reaches beyond the array; files may leave such chunks as they are, and do not say so."""
        if partial and DEFLATE not in self._filters and self._filters:
            return None
        for number in reversed(range(len(self._filters))):
            if skipped & (1 << number):
                continue
            if self._filters[number] == DEFLATE:
                try:
                    data = zlib.decompress(data, bufsize=self._size)
                except zlib.error:
                    return None
            else:
                data = _unshuffled(data, self._dtype.itemsize)
        if len(data) != self._size:
            return None
        return np.frombuffer(data, self._dtype).reshape(self.chunk)


def _decoder(plist: Any, dtype: np.dtype[Any]) -> _Decoder | None:
    filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
    chunk = plist.get_chunk()
    if not {DEFLATE, SHUFFLE}.issuperset(filters) or prod(chunk) * dtype.itemsize < DIRECT:
        return None
    return _Decoder(chunk, dtype, filters)


def _unshuffled(data: bytes | memoryview, itemsize: int) -> bytes | memoryview:
    """The first bytes of all numbers come first, then the second ones, and so on."""
    count = len(data) // itemsize
    if count * itemsize != len(data):
        return data
    values = np.empty((count, itemsize), np.uint8)
    for number in range(itemsize):
        values[:, number] = np.frombuffer(data, np.uint8, count, number * count)
    return values.data.cast("B")


class _Storage:
    """An open dataset that is read by blocks; with a decoder, blocks are whole chunks."""

    def __init__(self, file: OpenFile, dataset: Any, item: Item, decoder: _Decoder | None) -> None:
        self._file, self._size = file, file.size
        self._dataset, self._item, self._decoder, self.taken = dataset, item, decoder, Taken()
        self._stored = dataset.get_storage_size() / (prod(dataset.shape) * dataset.dtype.itemsize)
        # HDF5 has a server asked for one chunk after the other.
        self._ranges = remote.Ranges(item.file) if self._lists_chunks() else None
        self._listing = threading.Lock()
        self._places: dict[tuple[int, ...], Any] | None = None

    def close(self) -> None:
        self._file.close()
        if self._ranges is not None:
            self._ranges.close()

    def _lists_chunks(self) -> bool:
        if self._decoder is None or not is_url(self._item.file):
            return False
        large = prod(self._decoder.chunk) * self._dataset.dtype.itemsize >= LEAST
        return large and self._dataset.get_num_chunks() <= MOST_LISTED

    def fetch(self, box: Box) -> np.ndarray:
        """The values in `box`. Raises `RunFailed`."""
        try:
            values = self._values(box)
        finally:
            # Behind the end of a file HDF5 reads zeros, and takes chunks for damaged.
            size = self._file.size
            if size < self._size:
                cut = RunFailed(f"{self._item}: is cut short: it had {self._size} bytes, and there are {size}")
                raise cut from None
        return values

    def _values(self, box: Box) -> np.ndarray:
        if self._decoder is None:
            array = self._by_hdf5(box)
            self.taken.add(round(array.nbytes * self._stored))
            return array
        chunk = self._decoder.chunk
        starts = [range(part.start, part.stop, size) for part, size in zip(box, chunk, strict=True)]
        if all(len(places) == 1 for places in starts):
            return self._chunk(self._decoder, box)
        out = np.empty([part.stop - part.start for part in box], self._dataset.dtype)
        for start in itertools.product(*starts):
            inner = tuple(
                slice(at, min(at + size, part.stop)) for at, size, part in zip(start, chunk, box, strict=True)
            )
            to = tuple(slice(at.start - part.start, at.stop - part.start) for at, part in zip(inner, box, strict=True))
            out[to] = self._chunk(self._decoder, inner)
        return out

    def _chunk(self, decoder: _Decoder, box: Box) -> np.ndarray:
        """The chunk that begins where `box` does, which reaches to its end or the array's."""
        found = self._stored_bytes(tuple(part.start for part in box))
        if found is None:
            # HDF5 knows what is there instead, or what is wrong.
            return self._by_hdf5(box)
        skipped, data = found
        self.taken.add(len(data))
        sizes = tuple(part.stop - part.start for part in box)
        chunk = decoder.decode(data, skipped, sizes != decoder.chunk)
        if chunk is not None:
            return chunk[tuple(map(slice, sizes))]
        try:
            return self._by_hdf5(box)
        except RunFailed as error:
            raise RunFailed(f"{error}: the chunk at {tuple(part.start for part in box)} is damaged") from None

    def _stored_bytes(self, start: tuple[int, ...]) -> tuple[int, bytes] | None:
        """Of the chunk that begins at `start`: the filters that were left out, and its bytes; None: it was never
        written, or cannot be read."""
        if self._ranges is None:
            try:
                return self._dataset.read_direct_chunk(start)
            except (OSError, RuntimeError, ValueError):
                return None
        place = self._place(start)
        if place is None:
            return None
        try:
            return place.filter_mask, self._ranges.read(place.byte_offset, place.byte_offset + place.size)
        except OSError as error:
            raise RunFailed(f"{self._item}: cannot be read: {error.strerror or reason(error)}") from None

    def _place(self, start: tuple[int, ...]) -> Any:
        """Where the chunk that begins at `start` lies in the file; None: nowhere."""
        with self._listing:
            if self._places is None:
                places: dict[tuple[int, ...], Any] = {}
                self._dataset.chunk_iter(lambda place: places.update({place.chunk_offset: place}))
                self._places = places
        return self._places.get(start)

    def _by_hdf5(self, box: Box) -> np.ndarray:
        array = np.empty([part.stop - part.start for part in box], self._dataset.dtype)
        within = h5s.create_simple(self._dataset.shape)
        within.select_hyperslab(tuple(part.start for part in box), array.shape)
        try:
            self._dataset.read(h5s.create_simple(array.shape), within, array)
        except (OSError, RuntimeError, ValueError) as error:
            raise RunFailed(f"{self._item}: cannot be read: {said(error)}") from None
        return array


def _is_as_in_memory(dataset: Any) -> bool:
    """Whether numbers are stored as NumPy holds them."""
    taken = dataset.dtype
    return bool(dataset.get_type().equal(h5t.py_create(taken, logical=taken.kind == "b")))


def _is_inside(dataset: Any, plist: Any, file: OpenFile) -> bool:
    """Whether all of a contiguous dataset is there, in the file itself: a link may lead to another one."""
    if h5f.get_name(dataset) != h5f.get_name(file.h5.id):
        return False
    return plist.get_external_count() == 0 and dataset.get_space_status() == h5d.SPACE_STATUS_ALLOCATED
