"""What has no run stay in progress for ever, and one whose process is gone go on by itself: two automations of the
server, and what each worker sees to."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flows.attempt import RESTARTED, most_restarts

if TYPE_CHECKING:
    from prefect.automations import Automation

# Three heartbeats of 30 s.
LOST_S = 90.0
# From a worker's taking a run to its first word: a container's image may have to be fetched.
BEGUN_S = 900.0
# A crashed run that no automation has scheduled again by then, its worker does; not one of long ago.
AUTOMATION_S, FORGOTTEN_S = 15.0, 3600.0
# So often a worker looks.
KEEP_S = 10.0

HEARTBEAT = "prefect.flow-run.heartbeat"
ENDED = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
BACK = {f"prefect.flow-run.{name}" for name in ("Scheduled", "AwaitingRetry", "Late", "Paused", "Suspended")}
# Our flows alone: what else uses the server has automations of its own.
OURS = {"prefect.resource.role": "flow", "prefect.resource.name": "rml"}


def lost_heartbeat() -> Automation:
    """A run that gives no sign of life is Crashed: its machine is gone, or its worker was killed with it."""
    from prefect.automations import Automation, EventTrigger, Posture
    from prefect.events.actions import ChangeFlowRunState
    from prefect.server.schemas.states import StateType

    message = "No sign of life from its process: the machine, or the worker and the run, are gone"
    return Automation(
        name="rml: no heartbeat",
        description="A run that has given no sign of life is crashed.",
        enabled=True,
        trigger=EventTrigger(
            type="event",
            posture=Posture.Proactive,
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=OURS,
            for_each={"prefect.resource.id"},
            after={HEARTBEAT},
            expect={HEARTBEAT, *ENDED, *BACK},
            threshold=1,
            within=timedelta(seconds=seconds("RML_LOST_SECONDS", LOST_S)),
        ),
        actions=[
            ChangeFlowRunState(type="change-flow-run-state", state=StateType.CRASHED, name="Crashed", message=message)
        ],
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


def keep(worker: str, busy: Callable[[], Collection[str]]) -> None:
    """What the worker of this name sees to, every few seconds: events, and with them automations, are lost with a
    server that is killed, or that has too much to do.

    Its runs whose processes are gone are Crashed, or Cancelled; crashed ones are scheduled again. `busy`: those that it
    is about to start, or to report of, itself.

    Raises:
        OSError: the server is away.
    """
    from flows.service import processes, runs
    from flows.service.state import named

    state = named()
    options = state.options()
    if options is None:
        return
    begun = runs.in_progress(options)
    # Asked in this order: what was begun before the server answered is among them.
    own = busy()
    alive = processes.of_runs(state) if begun else {}
    for run in begun:
        if run["id"] in own or run["id"] in alive:
            continue
        if _worker_of(run) == worker:
            is_cancelled = run["state_type"] == "CANCELLING"
            name, why = ("Cancelled", "Cancelled") if is_cancelled else ("Crashed", "Its process is gone")
            _set(options.api, run, {"type": name.upper(), "name": name, "message": why})
        elif run["state_type"] == "PENDING" and _age(run) > BEGUN_S:
            why = "A worker has taken this run, and it has not begun: the worker is gone"
            _set(options.api, run, {"type": "CRASHED", "name": "Crashed", "message": why})
    if most_restarts():
        for run in _crashed(options.api):
            if _worker_of(run) == worker and run["id"] not in busy() and AUTOMATION_S < _age(run) < FORGOTTEN_S:
                _set(options.api, run, {"type": "SCHEDULED", "name": "AwaitingRetry", "message": RESTARTED})


def _worker_of(run: dict[str, Any]) -> str | None:
    return (run.get("labels") or {}).get("prefect.worker.name")


def _age(run: dict[str, Any]) -> float:
    """Seconds since it came into its state."""
    since = datetime.fromisoformat(run["state"]["timestamp"].replace("Z", "+00:00"))
    return (datetime.now(UTC) - since).total_seconds()


def _crashed(url: str) -> list[dict[str, Any]]:
    """Crashed runs of our deployments, the newest first."""
    from flows.service import api

    body = {
        "flow_runs": {"state": {"type": {"any_": ["CRASHED"]}}, "deployment_id": {"is_null_": False}},
        "flows": {"name": {"any_": ["rml"]}},
        "sort": "EXPECTED_START_TIME_DESC",
        "limit": 50,
    }
    found: list[dict[str, Any]] = api.call(url, "/flow_runs/filter", body)
    return found


def _set(url: str, run: dict[str, Any], state: dict[str, Any]) -> None:
    from flows.service import api

    # Meanwhile somebody else may have seen to it.
    if api.call(url, f"/flow_runs/{run['id']}")["state_id"] == run["state_id"]:
        api.call(url, f"/flow_runs/{run['id']}/set_state", {"state": state})


def seconds(variable: str, default: float) -> float:
    """What the environment of `rml up` says, at least the ten seconds that Prefect asks for."""
    try:
        return max(float(os.environ.get(variable, default)), 10.0)
    except ValueError:
        return default
