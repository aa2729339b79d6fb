"""The order in which the server's automations see events, for a server that was killed and begun again.

Prefect has an event wait for the one that it follows, a quarter of an hour at most, and remembers in memory which have
come: those that follow one of the server before would wait for what never comes, and the automations with them.
"""

from __future__ import annotations

import time
from uuid import UUID

from prefect.server.events.ordering.memory import CausalOrdering as InMemory
from prefect.server.events.schemas.events import ReceivedEvent

__all__ = ["CausalOrdering"]

BEGAN_MS = time.time_ns() // 1_000_000


class CausalOrdering(InMemory):
    async def wait_for_leader(self, event: ReceivedEvent) -> None:
        if event.follows is None or not is_before(event.follows, BEGAN_MS):
            await super().wait_for_leader(event)


def is_before(event: UUID, milliseconds: int) -> bool:
    """Whether an event was made before that time since 1970: its id says when (RFC 9562, version 7)."""
    return event.version == 7 and event.int >> 80 < milliseconds
