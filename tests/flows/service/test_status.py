"""What `rml status` says: first what is not well, and of the runs those that are in progress or due."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from flows.service import api, processes, status
from flows.service.state import Options, State
from flows.service.supervisor import Supervisor

PROGRAM = {"statename": "RUNNING", "pid": 7, "now": 9, "start": 4}


def answers(url: str, path: str, body: Any) -> Any:
    if path == "/work_pools/filter":
        one = {"status": "READY", "concurrency_limit": 2, "is_paused": False}
        return [{**one, "name": "cpu"}, {**one, "name": "gpu", "status": "NOT_READY"}]
    if path == "/deployments/filter":
        one = {"work_pool_name": "cpu", "paused": False, "schedules": []}
        return [{**one, "id": "1", "name": "train"}, {**one, "id": "2", "name": "retrain-a", "schedules": [{}]}]
    if path == "/automations/filter":
        return [{"name": "a", "enabled": True}, {"name": "b", "enabled": False}]
    if path == "/flow_runs/count":
        return 3
    runs = body["flow_runs"]
    kinds = runs["state"]["type"]["any_"]
    one = {"deployment_id": "1", "expected_start_time": "2026-11-24T05:00:00.123Z"}
    if "FAILED" in kinds:
        return [{**one, "id": "f", "name": "sad-cat", "state_name": "Failed"}]
    if "RUNNING" in kinds:
        return [{**one, "id": "r", "name": "red-fox", "state_name": "Running"}]
    due = "before_" in runs["expected_start_time"]
    return [{**one, "id": "l", "name": "old-owl" if due else "later", "state_name": "Late"}]


@pytest.mark.parametrize("finds", [True, False])
def test_what_is_not_well_comes_first(finds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "call", answers)
    monkeypatch.setattr(api, "is_healthy", lambda url: True)
    monkeypatch.setattr(status, "gpus", lambda: 0)
    monkeypatch.setattr(processes, "listens", lambda state, port: True)
    monkeypatch.setattr(Supervisor, "programs", lambda self: {"server": PROGRAM, "cpu": PROGRAM})
    monkeypatch.setattr(os, "environ", {"PREFECT_HOME": str(tmp_path)})
    if finds:
        os.environ["PREFECT_API_URL"] = "http://localhost:4200/api/"
    state = State(tmp_path)
    state.keep(Options())
    page = "http://127.0.0.1:4200/runs/flow-run"
    hint = (
        "`prefect` and `rml submit` find no server from this shell; for this one: "
        "export PREFECT_API_URL=http://127.0.0.1:4200/api PREFECT_PLUGINS_ENABLED=true"
    )
    assert status.as_text(status.status(state)).splitlines() == [
        "all is well",
        *(() if finds else (hint,)),
        "automation b: off",
        "3 runs failed or crashed in the last 24 hours; the newest is sad-cat of rml/train: Failed, f, " + f"{page}/f",
        "pages: http://127.0.0.1:4200",
        f"state: {tmp_path}",
        "server: running, process 7, up 5 s",
        "worker cpu: running, process 7, up 5 s",
        "pool cpu: ready, 2 at a time",
        "pool gpu: no GPU here: not used",
        "deployment rml/retrain-a: pool cpu, 1 schedule, next at 2026-11-24 05:00:00 UTC",
        "deployment rml/train: pool cpu",
        "automation a: on",
        f"run red-fox of rml/train: Running, r, {page}/r",
        f"run old-owl of rml/train: Late, l, {page}/l",
    ]


def test_the_runs_of_another_service_on_its_port_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api, "is_healthy", lambda url: True)
    monkeypatch.setattr(os, "environ", {"PREFECT_HOME": str(tmp_path)})
    state = State(tmp_path)
    state.keep(Options())
    found = status.status(state)
    assert (found.well, found.content["up"]) == (False, False)
    assert status.as_text(found) == f"nothing is up in {tmp_path}: `rml up` puts a service up"
