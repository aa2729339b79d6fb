"""What the system holds in memory of a file that is mapped, and having it read what will be touched."""

from __future__ import annotations

import itertools
import os
import weakref
from math import prod

import numpy as np

# What is asked for is whole blocks of so many bytes: neighbours in the order of training share them.
READ_AHEAD = 1 << 16
# Longer runs the system reads well by itself; nor is it told of more runs than these.
LARGE, MOST_RUNS = 1 << 26, 1 << 16
TRUST = 16


class PageCache:
    """Asks for the pages of arrays that lie in the file `path`, where they are not in memory.

    Else each page is read when it is touched, one after the other, and with it what the system takes to be needed
    next: 128 KiB, or many MiB where disks are set up for streams. Where the system cannot say what it holds, nothing
    is asked. After `TRUST` arrays in a row that were in memory one in `TRUST` is looked at.
    """

    def __init__(self, path: str, base: int) -> None:
        """`base`: where blocks are counted from. Raises `OSError`."""
        self._base, self._reads, self._held = base, 0, 0
        self._able = hasattr(os, "RWF_NOWAIT") and hasattr(os, "posix_fadvise")
        # A file of its own, for which looking at a page asks for no more than that page.
        self._file = os.open(path, os.O_RDONLY)
        self.close = weakref.finalize(self, os.close, self._file)
        if self._able:
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    def size(self) -> int:
        """How long the file is now."""
        return os.fstat(self._file).st_size

    def looks(self) -> bool:
        """Whether the next array is to be told."""
        self._reads += 1
        return self._able and (self._held < TRUST or self._reads % TRUST == 0)

    def want(self, start: int, array: np.ndarray) -> None:
        """`array`, which begins at the byte `start`, is about to be read."""
        last = start + sum(step * (size - 1) for step, size in zip(array.strides, array.shape, strict=True))
        if self._holds(start) and self._holds(last):
            self._held += 1
            return
        self._held = 0
        run, outer = runs_of(array, READ_AHEAD)
        if run > LARGE or prod(size for _, size in outer) > MOST_RUNS:
            return
        for places in itertools.product(*(range(0, step * size, step) for step, size in outer)):
            first = (start - self._base + sum(places)) // READ_AHEAD
            behind = -(-(start - self._base + sum(places) + run) // READ_AHEAD)
            at, size = self._base + first * READ_AHEAD, (behind - first) * READ_AHEAD
            os.posix_fadvise(self._file, at, size, os.POSIX_FADV_WILLNEED)

    def _holds(self, at: int) -> bool:
        try:
            os.preadv(self._file, [bytearray(1)], at, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        except OSError:
            self._able = False
        return True


def runs_of(array: np.ndarray, gap: int) -> tuple[int, list[tuple[int, int]]]:
    """The bytes of each run of `array`, where what is at most `gap` bytes apart is one, and the stride and the count of
    the runs along each axis that has several."""
    run, outer = array.itemsize, list[tuple[int, int]]()
    for step, size in sorted(zip(array.strides, array.shape, strict=True)):
        if size == 1:
            continue
        if not outer and step <= run + gap:
            run += step * (size - 1)
        else:
            outer.append((step, size))
    return run, outer
