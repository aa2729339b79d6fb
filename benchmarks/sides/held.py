"""What a piece of work takes, printed for who started this process: seconds, and anonymous memory.

Needs nothing but Python, so that a peer's environment runs it as well. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

INTERVAL_S = 0.004
STATUS = Path("/proc/self/status")


def anonymous() -> int:
    """Bytes of memory that no file stands behind; mapped files and the system's cache are not counted."""
    for line in STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("the system does not tell RssAnon")


class Watched:
    """Samples `anonymous` while it is open; `most`: above what was held when it was opened."""

    def __enter__(self) -> Watched:
        # What earlier work has freed is given back first: using it again would count for nothing.
        ctypes.CDLL(None).malloc_trim(0)
        self._done = threading.Event()
        self._first = self._most = anonymous()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL_S):
            self._most = max(self._most, anonymous())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._most = max(self._most, anonymous())

    @property
    def most(self) -> int:
        return self._most - self._first


def measured(work: Callable[[], Any]) -> dict[str, float]:
    with Watched() as watched:
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "MB": watched.most / 1e6}


def tell(figures: dict[str, float]) -> None:
    """The last line of standard output, as JSON."""
    print(json.dumps(figures), flush=True)
