"""HDF5 datasets read box by box, by how they are stored.

Layouts: https://docs.hdfgroup.org/documentation/hdf5/latest/_l_b_com_dset.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from h5py import h5d, h5s, h5t

from rml_core.config.paths import is_url
from rml_core.config.problem import RunFailed
from rml_core.data.chunked import Chunked, runs, whole_chunks
from rml_core.data.hdf5 import OpenFile, said
from rml_core.data.mapped import lying_at
from rml_core.data.volumes import Box, Source

if TYPE_CHECKING:
    from rml_core.data.files import Item

# What is not chunked and cannot be mapped is read in blocks of so many bytes; smaller chunks are read several at once.
BLOCK, LEAST = 1 << 22, 1 << 18


def source_of(file: OpenFile, item: Item, cache_bytes: int) -> Source:
    """The dataset `item` of the open `file`, which is closed with what is given, or at once where it is mapped.

    Raises `RunFailed` where a filter is missing, and what h5py raises.
    """
    dataset = h5d.open(file.h5.id, item.inside.encode())
    shape, dtype = dataset.shape, dataset.dtype
    plist = dataset.get_create_plist()
    layout = plist.get_layout()
    if layout == h5d.CONTIGUOUS and _lies_as_in_memory(dataset, plist):
        offset = dataset.get_offset()
        file.close()
        return lying_at(item, offset, shape, _raw(dtype), False, cache_bytes)
    if layout == h5d.CHUNKED:
        block = whole_chunks(plist.get_chunk(), shape, dtype.itemsize, LEAST)
    else:
        block = runs(shape, dtype.itemsize, BLOCK)

    def fetch(box: Box) -> tuple[np.ndarray, int]:
        array = np.empty([part.stop - part.start for part in box], dtype)
        within = h5s.create_simple(shape)
        within.select_hyperslab(tuple(part.start for part in box), array.shape)
        try:
            dataset.read(h5s.create_simple(array.shape), within, array)
        except (OSError, RuntimeError, ValueError) as error:
            raise RunFailed(f"{item}: cannot be read: {said(error)}") from None
        return array, array.nbytes

    return Chunked(shape, dtype, block, fetch, cache_bytes, is_url(item.file), file.close)


def _lies_as_in_memory(dataset: Any, plist: Any) -> bool:
    """Whether all of a contiguous dataset is in the file itself, in a type that NumPy has."""
    stored, taken = dataset.get_type(), dataset.dtype
    logical = taken.kind == "b"
    return (
        plist.get_external_count() == 0
        and dataset.get_space_status() == h5d.SPACE_STATUS_ALLOCATED
        and stored.equal(h5t.py_create(taken, logical=logical))
    )


def _raw(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype
