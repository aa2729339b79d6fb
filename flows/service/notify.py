"""Automations that tell a webhook: of runs that have failed, that hang, and of better models.

The address is kept by the server in a block, encrypted: with a chat's webhook the address is the password.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.attempt import most_restarts
from flows.champion import PROMOTED
from flows.service import api
from flows.service.state import Options
from flows.service.survival import BACK, ENDED, LONG, LONG_S, OURS, seconds
from rml_core.config.problem import Problem, Refused

if TYPE_CHECKING:
    from prefect.automations import Automation

BLOCK = "rml-webhook"
NONE = "none"
# How the names of the automations that tell begin.
TELLS = "rml: tells of "
# The server looks at an event once more where its database was locked: what it has told of that run, and within these
# seconds, is not told again.
ONCE_S = 30.0

# What is sent, as JSON: `text` is what chats show.
OF_A_RUN = """\
{
  "event": "%(event)s",
  "text": {{ ("rml: " ~ flow_run.name ~ " %(said)s" ~ %(then)s ~ ": " ~ (flow_run.state.message or "")|truncate(500) ~ " " ~ flow_run|ui_url)|tojson }},
  "run": {{ flow_run.name|tojson }},
  "run_id": {{ flow_run.id|string|tojson }},
  "event_id": {{ event.id|string|tojson if event else "null" }},
  "deployment": {{ deployment.name|tojson if deployment else "null" }},
  "state": {{ flow_run.state.name|tojson }},
  "reason": {{ (flow_run.state.message or "")|truncate(2000)|tojson }},
  "url": {{ flow_run|ui_url|tojson }},
  "time": {{ firing.triggered|string|tojson }}
}"""  # noqa: E501
OF_A_MODEL = """\
{
  "event": "better model",
  "text": {{ ("rml: a better model: " ~ event.payload.why ~ " " ~ flow_run|ui_url)|tojson }},
  "run": {{ flow_run.name|tojson }},
  "run_id": {{ flow_run.id|string|tojson }},
  "event_id": {{ event.id|string|tojson if event else "null" }},
  "reason": {{ event.payload.why|tojson }},
  "metric": {{ event.payload.metric|tojson }},
  "value": {{ event.payload.value|tojson }},
  "champion_value": {{ event.payload.champion_value|tojson }},
  "checkpoint": {{ event.payload.checkpoint|tojson }},
  "url": {{ flow_run|ui_url|tojson }},
  "time": {{ firing.triggered|string|tojson }}
}"""


def check(url: str | None) -> None:
    """Raises `Refused` where `url` is no address that can be told."""
    if url is not None and url != NONE and not url.startswith(("http://", "https://")):
        # It is not repeated: what was typed wrongly may hold the password all the same.
        raise Refused([Problem("--webhook", "is no address", "https://..., or none to tell nobody any more")])


def keep(options: Options, url: str | None) -> None:
    """Keep the address on the server, in place of an earlier one; "none" removes it, and None leaves it as it is."""
    if url is None:
        return
    if url == NONE:
        found = block_id(options.api)
        if found is not None:
            api.call(options.api, f"/block_documents/{found}", method="DELETE")
        return
    from prefect.blocks.webhook import Webhook
    from pydantic import SecretStr

    block = Webhook(url=SecretStr(url), headers={"Content-Type": "application/json"})
    block.save(BLOCK, overwrite=True)


def block_id(url: str) -> UUID | None:
    """The block with the address; None: nobody is to be told."""
    body = {"block_documents": {"name": {"any_": [BLOCK]}, "is_anonymous": {"eq_": False}}}
    found: list[dict[str, Any]] = api.call(url, "/block_documents/filter", body)
    return UUID(found[0]["id"]) if found else None


def failed(block: UUID) -> Automation:
    """A run that has failed, or whose process is gone and which nobody starts again."""
    return _tells(
        f"{TELLS}failed runs",
        "A run that has failed is told of.",
        block,
        _of_a_run("failed", "has failed"),
        expect={"prefect.flow-run.Failed"},
    )


def crashed(block: UUID) -> Automation:
    """A run whose process is gone, or that gave no sign of life; it goes on by itself, as often as it may."""
    retries = most_restarts()
    then = f", and goes on by itself ({retries} time{'s' if retries > 1 else ''} at most, RML_RETRIES)"
    return _tells(
        f"{TELLS}crashed runs",
        "A run that gave no sign of life, or whose process is gone, is told of.",
        block,
        _of_a_run("stalled", "has stalled", f'("{then}" if deployment else "")' if retries else '""'),
        expect={"prefect.flow-run.Crashed"},
    )


def too_long(block: UUID) -> Automation:
    """A run that takes longer than any should: it lives, and may hang."""
    within = seconds(LONG, LONG_S)
    return _tells(
        f"{TELLS}long runs",
        f"A run that has not ended after {within:g} seconds is told of (RML_LONG_SECONDS of `rml up`).",
        block,
        _of_a_run("stalled", f"has not ended after {within:g} s"),
        expect=ENDED | BACK,
        after={"prefect.flow-run.Running"},
        within=within,
    )


def promoted(block: UUID) -> Automation:
    """A retraining has found a better model."""
    return _tells(
        f"{TELLS}better models",
        "A new champion is told of.",
        block,
        OF_A_MODEL,
        expect={PROMOTED},
        match={"prefect.resource.id": "rml.champion.*"},
        match_related={},
    )


def _of_a_run(event: str, said: str, then: str = '""') -> str:
    """What is sent of a run. `then`: an expression of the template, which stands behind what is `said`."""
    return OF_A_RUN % {"event": event, "said": said, "then": then}


def _tells(
    title: str,
    description: str,
    block: UUID,
    payload: str,
    *,
    expect: set[str],
    after: set[str] = frozenset(),  # type: ignore[assignment]
    within: float = ONCE_S,
    match: dict[str, str] | None = None,
    match_related: dict[str, str] | None = None,
) -> Automation:
    from prefect.automations import Automation, EventTrigger, Posture
    from prefect.events.actions import CallWebhook

    return Automation(
        name=title,
        description=description,
        enabled=True,
        trigger=EventTrigger(
            type="event",
            posture=Posture.Proactive if after else Posture.Reactive,
            match=match or {"prefect.resource.id": "prefect.flow-run.*"},
            match_related=OURS if match_related is None else match_related,
            for_each={"prefect.resource.id"},
            after=set(after),
            expect=expect,
            threshold=1,
            within=timedelta(seconds=within),
        ),
        actions=[CallWebhook(type="call-webhook", block_document_id=block, payload=payload)],
    )
