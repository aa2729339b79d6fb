"""Open files, a few a thread: a file with many samples is opened once, not once a sample."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# So many files a thread holds open.
LIMIT = 8


class _Open(threading.local):
    """A thread's own files, the one used last at the end; they are closed with the thread."""

    def __init__(self) -> None:
        self.files: OrderedDict[Any, Any] = OrderedDict()


_open = _Open()


def opened(key: Any, open_it: Callable[[], Any]) -> Any:
    """What `open_it` has given this thread for `key`; of more than `LIMIT` the one unused for longest is closed."""
    files = _open.files
    if key not in files:
        files[key] = open_it()
        if len(files) > LIMIT:
            _close(files.popitem(last=False)[1])
    files.move_to_end(key)
    return files[key]


@contextmanager
def closing() -> Iterator[None]:
    """Closes this thread's files at the end."""
    try:
        yield
    finally:
        while _open.files:
            _close(_open.files.popitem()[1])


def _close(file: Any) -> None:
    if hasattr(file, "close"):
        file.close()
