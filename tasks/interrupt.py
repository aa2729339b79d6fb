"""Ctrl-C and SIGTERM while training: the batch is finished, then the run is told, once its state is safe.

A signal that raised an exception in the middle of an update would leave weights that no checkpoint may hold.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """`signal` is the one that came, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._handlers: dict[int, Any] = {}

    def restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def deliver(self) -> None:
        """Hand the signal to who would have had it: the flow engine, the command, or Python."""
        self.restore()
        if self.signal is not None:
            signal.raise_signal(self.signal)


@contextmanager
def deferred(stop: Callable[[], None]) -> Iterator[Interruption]:
    """Within the context the first signal calls `stop` and is kept; a second one acts at once.

    Python delivers signals to the main thread alone: in any other thread nothing is deferred.
    """
    interruption = Interruption()

    def handle(number: int, frame: FrameType | None) -> None:
        interruption.signal = number
        interruption.restore()
        stop()

    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            # Who started this process may have it ignore a signal, as a shell does for Ctrl-C and what runs with `&`.
            if signal.getsignal(number) is not signal.SIG_IGN:
                interruption._handlers[number] = signal.signal(number, handle)
    try:
        yield interruption
    finally:
        interruption.restore()
