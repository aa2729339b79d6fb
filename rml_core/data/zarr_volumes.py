"""Zarr arrays read box by box, by their chunks, the inner ones where they lie in shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import WrapperStore

from rml_core.config.paths import is_url
from rml_core.config.problem import RunFailed
from rml_core.data.arrays import reason
from rml_core.data.chunked import Chunked, Taken, whole_chunks
from rml_core.data.volumes import Box, Source

if TYPE_CHECKING:
    from rml_core.data.files import Item

# Smaller chunks are read several at once: each costs Zarr half a millisecond.
LEAST = 1 << 18


def source_of(array: Any, item: Item, cache_bytes: int) -> Source:
    """The open Zarr `array`."""
    store = _Counting(array.store)
    array = zarr.open_array(store, path=array.path, mode="r")
    block = whole_chunks(array.chunks, array.shape, array.dtype.itemsize, LEAST)

    def fetch(box: Box) -> np.ndarray:
        try:
            return np.asarray(array[box])
        except Exception as error:  # whatever codecs say of a damaged chunk
            start = tuple(part.start for part in box)
            raise RunFailed(f"{item}: the chunk at {start} cannot be read: {reason(error)}") from None

    return Chunked(array.shape, array.dtype, block, fetch, store.taken, cache_bytes, parallel=is_url(item.file))


class _Counting(WrapperStore[Any]):
    """A store that counts the bytes it gives."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.taken = Taken()

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        found = await super().get(key, prototype, byte_range)
        self.taken.add(0 if found is None else len(found))
        return found
