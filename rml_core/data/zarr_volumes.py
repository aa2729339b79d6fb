"""Zarr arrays read box by box, by their chunks, the inner ones where they lie in shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rml_core.config.problem import RunFailed
from rml_core.data.arrays import reason
from rml_core.data.chunked import Chunked, whole_chunks
from rml_core.data.volumes import Box, Source

if TYPE_CHECKING:
    from rml_core.data.files import Item

# Smaller chunks are read several at once.
LEAST = 1 << 18


def source_of(array: Any, item: Item, cache_bytes: int) -> Source:
    block = whole_chunks(array.chunks, array.shape, array.dtype.itemsize, LEAST)

    def fetch(box: Box) -> tuple[np.ndarray, int]:
        try:
            values = np.asarray(array[box])
        except Exception as error:  # whatever codecs say of a damaged chunk
            raise RunFailed(f"{item}: cannot be read: {reason(error)}") from None
        return values, values.nbytes

    return Chunked(array.shape, array.dtype, block, fetch, cache_bytes, parallel=True)
