"""What a run tells while it works. Phases publish; the console (or whoever watches) listens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger("rml")

_listeners: list[Callable[[Any], None]] = []


def publish(event: Any) -> None:
    for listener in list(_listeners):
        listener(event)


@contextmanager
def listening(listener: Callable[[Any], None]) -> Iterator[None]:
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
