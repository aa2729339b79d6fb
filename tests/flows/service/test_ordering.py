"""Events of a server that was killed: what follows them does not wait for them."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from prefect._internal.uuid7 import uuid7
from prefect.server.events.ordering import EventArrivedEarly
from prefect.server.events.schemas.events import ReceivedEvent, Resource
from prefect.types._datetime import now

from flows.service.ordering import BEGAN_MS, CausalOrdering, is_before


def event_that_follows(leader: UUID | None) -> ReceivedEvent:
    resource = Resource({"prefect.resource.id": "prefect.flow-run.x"})
    return ReceivedEvent(
        occurred=now("UTC"), event="prefect.flow-run.Crashed", resource=resource, id=uuid7(), follows=leader
    )


def comes_at_once(leader: UUID | None) -> bool:
    ordering = CausalOrdering(scope=str(uuid4()))
    try:
        asyncio.run(ordering.wait_for_leader(event_that_follows(leader)))
    except EventArrivedEarly:
        return False
    return True


def test_what_follows_an_event_of_before_the_start_does_not_wait() -> None:
    assert comes_at_once(uuid7(ms=BEGAN_MS - 1000))
    assert comes_at_once(None)


def test_what_follows_an_event_that_is_yet_to_come_waits() -> None:
    assert not comes_at_once(uuid7())
    # Of another kind of id nothing is known.
    assert not comes_at_once(uuid4())


@pytest.mark.parametrize(("ms", "before"), [(999, True), (1000, False), (1001, False)])
def test_an_id_says_when_it_was_made(ms: int, before: bool) -> None:
    assert is_before(uuid7(ms=ms), 1000) is before


def test_prefect_takes_it() -> None:
    from prefect.server.events.ordering import get_triggers_causal_ordering
    from prefect.settings import PREFECT_SERVER_EVENTS_CAUSAL_ORDERING, temporary_settings

    from flows.service.environment import DEFAULTS

    name = DEFAULTS["PREFECT_SERVER_EVENTS_CAUSAL_ORDERING"]
    with temporary_settings({PREFECT_SERVER_EVENTS_CAUSAL_ORDERING: name}):
        assert isinstance(get_triggers_causal_ordering(), CausalOrdering)
