"""A Zarr store's folder on this machine, of which nothing is read that lies outside of `RML_ROOTS`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from rml_core.config import roots


class Folder(LocalStore):
    """Each file is looked at once more when it is open: the links that were looked at before may lead elsewhere by
    now."""

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        if roots.roots() is None:
            return super().get_sync(key, prototype=prototype, byte_range=byte_range)
        try:
            with roots.opened(str(self.root / key)) as file:
                start, count = _part(byte_range, os.fstat(file.fileno()).st_size)
                file.seek(start)
                content = file.read(count)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(content)

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        return await asyncio.to_thread(self.get_sync, key, prototype=prototype, byte_range=byte_range)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        return await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges))


def _part(asked: Any, size: int) -> tuple[int, int]:
    """(start, bytes) of what is asked for of a file; -1: to its end."""
    if isinstance(asked, RangeByteRequest):
        return asked.start, asked.end - asked.start
    if isinstance(asked, OffsetByteRequest):
        return asked.offset, -1
    if isinstance(asked, SuffixByteRequest):
        return max(0, size - asked.suffix), -1
    return 0, -1
