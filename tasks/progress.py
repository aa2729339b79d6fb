"""What a run tells while it works. Phases publish; the console (or whoever watches) listens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rml_core.config.problem import redacted

log = logging.getLogger("rml")


def _without_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = redacted(record.getMessage()), None
    return True


log.addFilter(_without_secrets)

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
