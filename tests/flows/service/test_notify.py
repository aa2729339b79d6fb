"""What a webhook is told: once for what has happened, and whether the run goes on by itself."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import jinja2
import pytest

from flows.service import notify

BLOCK = UUID(int=1)
RUN = SimpleNamespace(name="red-fox", id=UUID(int=2), state=SimpleNamespace(name="Crashed", message='its "end"'))


def body(template: str, deployment: Any) -> dict[str, Any]:
    environment = jinja2.Environment()
    environment.filters["ui_url"] = lambda run: f"http://server/{run.name}"
    around = {"event": SimpleNamespace(id=UUID(int=3)), "firing": SimpleNamespace(triggered="now")}
    text = environment.from_string(template).render(flow_run=RUN, deployment=deployment, **around)
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize(
    ("retries", "deployment", "goes_on"),
    [
        ("2", "train", ", and goes on by itself (2 times at most, RML_RETRIES)"),
        ("1", "train", ", and goes on by itself (1 time at most, RML_RETRIES)"),
        ("0", "train", ""),
        ("2", None, ""),
    ],
)
def test_a_crashed_run_says_whether_it_goes_on(
    retries: str, deployment: str | None, goes_on: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RML_RETRIES", retries)
    payload: Any = notify.crashed(BLOCK).actions[0]
    found = body(payload.payload, SimpleNamespace(name=deployment) if deployment else None)
    assert found == {
        "event": "stalled",
        "text": f'rml: red-fox has stalled{goes_on}: its "end" http://server/red-fox',
        "run": "red-fox",
        "run_id": str(UUID(int=2)),
        "event_id": str(UUID(int=3)),
        "deployment": deployment,
        "state": "Crashed",
        "reason": 'its "end"',
        "url": "http://server/red-fox",
        "time": "now",
    }


def test_an_event_that_the_server_sees_twice_is_told_once():
    for make in (notify.failed, notify.crashed, notify.promoted):
        trigger: Any = make(BLOCK).trigger
        # At 0 s the server fires at every event; else it keeps, for each run, until when it has fired.
        assert trigger.within == timedelta(seconds=30)
        assert trigger.for_each == {"prefect.resource.id"}
