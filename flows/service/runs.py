"""Runs that were in progress when their service went away: they are put back, and go on when it is up."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.parse
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flows.service import api, processes
from flows.service.state import Options, State, written

TAKEN_DOWN = "The service was taken down: goes on when it is up again"
NOTED = "in_progress.json"
BEGUN = ("PENDING", "RUNNING", "CANCELLING")


def in_progress(url: str) -> list[dict[str, Any]]:
    """The runs of our deployments that a worker has begun, on whatever machine. `url`: of the server's interface."""
    found: list[dict[str, Any]] = []
    while True:
        body = {
            "flow_runs": {"state": {"type": {"any_": list(BEGUN)}}, "deployment_id": {"is_null_": False}},
            # What else uses the server sees to its own.
            "flows": {"name": {"any_": ["rml"]}},
            "limit": 200,
            "offset": len(found),
        }
        more = api.call(url, "/flow_runs/filter", body)
        found += more
        if len(more) < 200:
            return found


def of_this_machine(options: Options) -> list[dict[str, Any]]:
    """The runs in progress that a worker of this machine has begun: those of others tell their runs themselves."""
    found = in_progress(options.api)
    unnamed = any(worker_of(run) is None for run in found)
    alone = unnamed and all(is_here(name) for name in workers(options.api).values())
    return [run for run in found if _is_ours(run, alone)]


def without_process(options: Options, since: datetime) -> list[dict[str, Any]]:
    """Runs that a worker of this machine has begun and that no process works on; those of them too that the server has
    taken for crashed `since` it was started: it has heard nothing of them while it was down."""
    alive = processes.runs_here()
    found = [*of_this_machine(options), *_crashed(options, since)]
    return [run for run in found if run["id"] not in alive]


def _crashed(options: Options, since: datetime) -> list[dict[str, Any]]:
    """Runs of this machine's workers that have crashed `since` then."""
    body = {
        "flow_runs": {
            "state": {"type": {"any_": ["CRASHED"]}},
            "deployment_id": {"is_null_": False},
            "end_time": {"after_": since.isoformat()},
        },
        "flows": {"name": {"any_": ["rml"]}},
        "limit": 200,
    }
    found: list[dict[str, Any]] = api.call(options.api, "/flow_runs/filter", body)
    return [run for run in found if (name := worker_of(run)) is not None and is_here(name)]


def _is_ours(run: dict[str, Any], alone: bool) -> bool:
    """Prefect's own workers say their names a moment after they have taken a run: until then it is ours where no other
    machine takes runs. A run that is on and has no name was begun by no worker of ours."""
    name = worker_of(run)
    return is_here(name) if name is not None else alone and run["state_type"] == "PENDING"


def worker_of(run: dict[str, Any]) -> str | None:
    """The name of the worker that has begun a run; None: it has not said so yet, or it was no worker."""
    name = (run.get("labels") or {}).get("prefect.worker.name")
    return None if name is None else str(name)


def is_here(worker: str) -> bool:
    """Whether the worker of this name is one of this machine."""
    return worker.endswith(f" on {socket.gethostname()}")


def workers(url: str, status: str = "ONLINE") -> dict[str, str]:
    """The names of the workers of all pools that are online, or gone, each with its id."""
    found: dict[str, str] = {}
    for pool in api.call(url, "/work_pools/filter", {}):
        for each in api.call(url, f"/work_pools/{urllib.parse.quote(pool['name'])}/workers/filter", {}):
            if each["status"] == status:
                found[each["id"]] = str(each["name"])
    return found


@dataclass(frozen=True)
class PutBack:
    """`count`: the runs that go on. `refused`: a line for each that the server does not put back."""

    count: int
    refused: list[str]


def put_back(
    options: Options, found: list[dict[str, Any]], why: str, only: tuple[str, ...] = (*BEGUN, "CRASHED", "SCHEDULED")
) -> PutBack:
    """Schedule runs anew that have not ended well since, and are in one of these states. One that was being cancelled
    is Cancelled, and one that is gone is none any more.

    Raises:
        OSError: the server is away.
    """
    count, refused = 0, []
    for run in found:
        try:
            count += _put_back(options, run, why, only)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                name, run_id = run.get("name", "of before"), run["id"]
                what = f"warning: run {name} could not be put back: the server refuses it ({error.code} {error.reason})"
                refused.append(f"{what}; `prefect flow-run delete {run_id}` frees it")
    return PutBack(count, refused)


def _put_back(options: Options, run: dict[str, Any], why: str, only: tuple[str, ...]) -> bool:
    """Whether the run goes on."""
    now = api.call(options.api, f"/flow_runs/{run['id']}")
    kind = now["state_type"]
    if kind not in only:
        return False
    if kind == "CANCELLING":
        _set(options, now, {"type": "CANCELLED", "name": "Cancelled", "message": why})
        return False
    # Scheduled by an automation meanwhile, it would count as one of the restarts that it may have.
    scheduled = {"scheduled_time": datetime.now(UTC).isoformat()}
    _set(options, now, {"type": "SCHEDULED", "name": "AwaitingRetry", "message": why, "state_details": scheduled})
    return True


def note(state: State, found: list[dict[str, Any]]) -> None:
    """Keep in the state folder which runs were in progress when the service was taken down, beside those of a command
    that was interrupted."""
    kept = {run["id"]: run["name"] for run in [*_noted(state), *found]}
    text = json.dumps([{"id": run, "name": name} for run, name in kept.items()])
    written(state.folder / NOTED, text + "\n")


def noted(state: State) -> list[dict[str, Any]]:
    """The runs that were in progress when the service was taken down the last time; asked for once."""
    found = _noted(state)
    (state.folder / NOTED).unlink(missing_ok=True)
    return found


def _noted(state: State) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads((state.folder / NOTED).read_text())
    except (OSError, ValueError):
        return []
    return found


def _set(options: Options, run: dict[str, Any], state: dict[str, Any]) -> None:
    api.call(options.api, f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
