"""Automations by which no run stays in progress for ever, and one whose process is gone goes on by itself."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from flows.attempt import RESTARTED

if TYPE_CHECKING:
    from prefect.automations import Automation

# Three heartbeats of 30 s. A server that was away for less counts from its return.
LOST_S = 90.0
# A worker has a run killed after 60 s that does not end when it is cancelled.
CANCELLED_S = 120.0
# From a worker's taking a run to its first word: a container's image may have to be fetched.
BEGUN_S = 900.0

HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
BACK = {f"prefect.flow-run.{name}" for name in ("Scheduled", "AwaitingRetry", "Late", "Paused", "Suspended")}
# Our flows alone: what else uses the server has automations of its own.
OURS = {"prefect.resource.role": "flow", "prefect.resource.name": "rml"}


def lost_heartbeat() -> Automation:
    """A run that gives no sign of life is Crashed: its machine is gone, or its worker was killed with it."""
    from prefect.server.schemas.states import StateType

    return _silence(
        "rml: no heartbeat",
        "A run that has given no sign of life is crashed.",
        after={HEARTBEAT},
        expect={HEARTBEAT, *ENDED, *BACK},
        within=seconds("RML_LOST_SECONDS", LOST_S),
        state=StateType.CRASHED,
        name="Crashed",
        message="No sign of life from its process: the machine, or the worker and the run, are gone",
    )


def cancelled() -> Automation:
    """A run whose worker is gone while it is being cancelled is Cancelled."""
    from prefect.server.schemas.states import StateType

    return _silence(
        "rml: cancelled",
        "A run that is being cancelled, and of which nothing is heard, is cancelled.",
        after={"prefect.flow-run.Cancelling"},
        expect={*ENDED, *BACK},
        within=seconds("RML_CANCELLED_SECONDS", CANCELLED_S),
        state=StateType.CANCELLED,
        name="Cancelled",
        message="Cancelled; nobody was there to say that it has ended",
    )


def not_begun() -> Automation:
    """A run that a worker has taken, and that does not begin, is Crashed."""
    from prefect.server.schemas.states import StateType

    return _silence(
        "rml: not begun",
        "A run that a worker has taken and that has not begun is crashed.",
        after={"prefect.flow-run.Pending"},
        expect={"prefect.flow-run.Running", "prefect.flow-run.Cancelling", *ENDED, *BACK},
        within=seconds("RML_BEGUN_SECONDS", BEGUN_S),
        state=StateType.CRASHED,
        name="Crashed",
        message="A worker has taken this run, and it has not begun: the worker is gone",
    )


def crashed() -> Automation:
    """A crashed run of a deployment is scheduled again: any worker of its pool takes it, and it goes on."""
    from prefect.automations import Automation, EventTrigger, Posture
    from prefect.events.actions import ChangeFlowRunState
    from prefect.server.schemas.states import StateType

    return Automation(
        name="rml: crashed",
        description="A crashed run goes on from its newest checkpoint; RML_RETRIES times at most.",
        enabled=True,
        trigger=EventTrigger(
            type="event",
            posture=Posture.Reactive,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=OURS,
            for_each={"prefect.resource.id"},
            after=set(),
            expect={"prefect.flow-run.Crashed"},
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            ChangeFlowRunState(
                type="change-flow-run-state", state=StateType.SCHEDULED, name="AwaitingRetry", message=RESTARTED
            )
        ],
    )


def _silence(
    title: str,
    description: str,
    *,
    after: set[str],
    expect: set[str],
    within: float,
    state: object,
    name: str,
    message: str,
) -> Automation:
    """Changes the state of a run of which, `after` one of these events, none is heard that is to be expected."""
    from prefect.automations import Automation, EventTrigger, Posture
    from prefect.events.actions import ChangeFlowRunState

    return Automation(
        name=title,
        description=description,
        enabled=True,
        trigger=EventTrigger(
            type="event",
            posture=Posture.Proactive,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=OURS,
            for_each={"prefect.resource.id"},
            after=after,
            expect=expect,
            threshold=1,
            within=timedelta(seconds=within),
        ),
        actions=[ChangeFlowRunState(type="change-flow-run-state", state=state, name=name, message=message)],
    )


def give_up(worker: str) -> int:
    """Say of the runs that the worker of this name had, before it was killed, that their processes are gone, where
    they are; gives how many. Called when it is started again: without it the server hears nothing for a while."""
    from flows.service import api, processes, runs
    from flows.service.state import named

    state = named()
    options = state.options()
    if options is None:
        return 0
    count = 0
    alive = processes.of_runs(state)
    for run in runs.in_progress(options):
        if (run.get("labels") or {}).get("prefect.worker.name") != worker or run["id"] in alive:
            continue
        is_cancelled = run["state_type"] == "CANCELLING"
        name, why = ("Cancelled", "Cancelled") if is_cancelled else ("Crashed", "Its worker and its process are gone")
        body = {"state": {"type": name.upper(), "name": name, "message": why}}
        api.call(options.api, f"/flow_runs/{run['id']}/set_state", body)
        count += 1
    return count


def seconds(variable: str, default: float) -> float:
    """What the environment of `rml up` says, at least the ten seconds that Prefect asks for."""
    try:
        return max(float(os.environ.get(variable, default)), 10.0)
    except ValueError:
        return default
