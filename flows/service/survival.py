"""What has no run stay in progress for ever, and one whose process is gone go on by itself: two automations of the
server, and what each worker sees to."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flows.attempt import RESTARTED, most_restarts
from rml_core.config.problem import Problem, Refused, collect, shown

if TYPE_CHECKING:
    from prefect.automations import Automation

# Variables of `rml up`, and what holds without them: a run that gives no sign of life is crashed (three heartbeats of
# 30 s), and one that takes long is told of.
LOST, LOST_S = "RML_LOST_SECONDS", 90.0
LONG, LONG_S = "RML_LONG_SECONDS", 86400.0
# From a worker's taking a run to its first word, where the worker is gone.
BEGUN_S = 900.0
# A run whose worker is gone, and that has given no sign of life for so long, is gone with it.
SILENT_S = 300.0
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
            within=timedelta(seconds=seconds(LOST, LOST_S)),
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


def keep(worker: str, busy: Callable[[], Collection[str]], answered_s: float = 0.0) -> None:
    """What the worker of this name sees to, every few seconds: events, and with them automations, are lost with a
    server that is killed, or that has too much to do.

    Runs whose processes are gone are Crashed, or Cancelled; crashed ones are scheduled again: its own, and those of
    workers that are gone. `busy`: those that it is about to start, or to report of, itself. `answered_s`: so long the
    server has answered; before it has for a while, nothing follows from silence.

    Raises:
        OSError: the server is away.
    """
    from flows.service import processes, runs

    url = os.environ["PREFECT_API_URL"]
    begun = runs.in_progress(url)
    # Asked in this order: what was begun before the server answered is among them.
    own = busy()
    alive = processes.runs_here() if begun else set()
    left = [run for run in begun if run["id"] not in own and run["id"] not in alive]
    crashed = _crashed(url) if most_restarts() else []
    others = any(runs.worker_of(run) != worker for run in (*left, *crashed))
    online = set(runs.workers(url).values()) if others else set()
    # Of a name that a service has given there is one worker; by hand, several of one name may be begun.
    alone = processes.MARK in os.environ
    for run in left:
        its = runs.worker_of(run)
        if its == worker and alone:
            # Of two that want a run the other one may have taken it, and says so again.
            if run["state_type"] != "PENDING" or _age(run) > KEEP_S:
                _end(url, run, "Its process is gone")
        elif its in online and its != worker:
            continue
        elif run["state_type"] == "PENDING":
            if _age(run) > BEGUN_S:
                _end(url, run, "A worker has taken this run, and it has not begun: the worker is gone")
        elif its is not None and min(_age(run), answered_s) > SILENT_S and not _is_heard(url, run):
            _end(url, run, "No sign of life from its process: the worker that has begun it is gone")
    for run in crashed:
        its = runs.worker_of(run)
        is_left = its is not None and (its == worker or its not in online)
        if is_left and run["id"] not in busy() and AUTOMATION_S < _age(run) < FORGOTTEN_S:
            _set(url, run, {"type": "SCHEDULED", "name": "AwaitingRetry", "message": RESTARTED})


def _end(url: str, run: dict[str, Any], why: str) -> None:
    is_cancelled = run["state_type"] == "CANCELLING"
    name, why = ("Cancelled", "Cancelled") if is_cancelled else ("Crashed", why)
    _set(url, run, {"type": name.upper(), "name": name, "message": why})


def _is_heard(url: str, run: dict[str, Any]) -> bool:
    """Whether the run has given a sign of life of late."""
    from flows.service import api

    since = datetime.now(UTC) - timedelta(seconds=SILENT_S)
    body = {
        "filter": {
            "occurred": {"since": since.isoformat()},
            "event": {"name": [HEARTBEAT]},
            "resource": {"id": [f"prefect.flow-run.{run['id']}"]},
        },
        "limit": 1,
    }
    return bool(api.call(url, "/events/filter", body)["events"])


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
    """What the environment of `rml up` says. Raises `Refused` where that is not what Prefect takes."""
    given = os.environ.get(variable)
    if not given:
        return default
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    if not 10.0 <= found < math.inf:
        raise Refused([Problem(variable, f"{shown(given)} does not fit", "seconds, 10 or more")])
    return found


def check() -> None:
    """Raises `Refused` where a variable for the automations is not what it should be."""
    collect(lambda: seconds(LOST, LOST_S), lambda: seconds(LONG, LONG_S))
