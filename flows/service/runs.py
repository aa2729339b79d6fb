"""Runs that were in progress when their service went away: they are put back, and go on when it is up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from flows.service import api, processes
from flows.service.state import Options, State, written

TAKEN_DOWN = "The service was taken down: goes on when it is up again"
BEGUN = ("PENDING", "RUNNING", "CANCELLING")


def in_progress(options: Options) -> list[dict[str, Any]]:
    """The runs of deployments that a worker has begun."""
    found: list[dict[str, Any]] = []
    while True:
        body = {
            "flow_runs": {"state": {"type": {"any_": list(BEGUN)}}, "deployment_id": {"is_null_": False}},
            "limit": 200,
            "offset": len(found),
        }
        more = api.call(options.api, "/flow_runs/filter", body)
        found += more
        if len(more) < 200:
            return found


def without_process(state: State, options: Options) -> list[dict[str, Any]]:
    """Runs that a worker of this service has begun and that no process of this machine works on."""
    alive = processes.of_runs(state)
    return [run for run in in_progress(options) if run["id"] not in alive and _is_ours(run)]


def _is_ours(run: dict[str, Any]) -> bool:
    """Whether its worker was on this machine: workers of others tell their runs themselves."""
    import socket

    name = (run.get("labels") or {}).get("prefect.worker.name")
    return name is None or str(name).endswith(f" on {socket.gethostname()}")


def put_back(
    options: Options, found: list[dict[str, Any]], why: str, only: tuple[str, ...] = (*BEGUN, "CRASHED", "SCHEDULED")
) -> int:
    """Schedule runs anew that have not ended well since, and are in one of these states; gives how many. One that was
    being cancelled is Cancelled."""
    count = 0
    for run in found:
        now = api.call(options.api, f"/flow_runs/{run['id']}")
        kind = now["state_type"]
        if kind not in only:
            continue
        if kind == "CANCELLING":
            _set(options, now, {"type": "CANCELLED", "name": "Cancelled", "message": why})
        else:
            # Scheduled by an automation meanwhile, it would count as one of the restarts that it may have.
            scheduled = {"scheduled_time": datetime.now(UTC).isoformat()}
            state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": why, "state_details": scheduled}
            _set(options, now, state)
            count += 1
    return count


def note(state: State, found: list[dict[str, Any]]) -> None:
    """Keep in the state folder which runs were in progress when the service was taken down."""
    written(state.folder / "in_progress.json", json.dumps([{"id": run["id"]} for run in found]) + "\n")


def noted(state: State) -> list[dict[str, Any]]:
    """The runs that were in progress when the service was taken down the last time; asked for once."""
    path = state.folder / "in_progress.json"
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    path.unlink()
    return found


def _set(options: Options, run: dict[str, Any], state: dict[str, Any]) -> None:
    api.call(options.api, f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
