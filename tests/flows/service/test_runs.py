"""Which runs of a server belong to a machine, and what its workers make of those whose processes are gone."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.error
from datetime import UTC, datetime, timedelta
from email.message import Message
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from flows.service import api, processes, runs, survival, worker
from flows.service.state import Options

HERE, THERE = f"cpu on {socket.gethostname()}", "cpu on another"


class Server:
    """What a server knows, and what it is told. `online`: its workers' names. `heard`: runs with a sign of life."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.online: list[str] = [HERE]
        self.heard: list[str] = []
        self.told: list[tuple[str, str, str]] = []
        self.asked: list[Any] = []

    def add(self, name: str, state: str, by: str | None, seconds: float = 0.0) -> None:
        since = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
        labels = {} if by is None else {"prefect.worker.name": by}
        state_of = {"timestamp": since}
        self.runs.append({"id": name, "state_type": state, "state_id": name, "labels": labels, "state": state_of})

    def __call__(self, url: str, path: str, body: Any = None) -> Any:
        if path == "/flow_runs/filter":
            self.asked.append(body["flows"])
            wanted = body["flow_runs"]["state"]["type"]["any_"]
            return [run for run in self.runs if run["state_type"] in wanted]
        if path == "/work_pools/filter":
            return [{"name": "cpu"}]
        if path == "/work_pools/cpu/workers/filter":
            return [{"id": name, "name": name, "status": "ONLINE"} for name in self.online]
        if path == "/events/filter":
            return {
                "events": [
                    name for name in self.heard if [f"prefect.flow-run.{name}"] == body["filter"]["resource"]["id"]
                ]
            }
        if path.endswith("/set_state"):
            self.told.append((path.split("/")[2], body["state"]["name"], body["state"]["message"]))
            return {}
        return next(run for run in self.runs if run["id"] == path.rpartition("/")[2])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(api, "call", server)
    monkeypatch.setattr(processes, "runs_here", set)
    monkeypatch.setenv("PREFECT_API_URL", "http://server/api")
    monkeypatch.delenv("RML_RETRIES", raising=False)
    monkeypatch.delenv(processes.MARK, raising=False)
    return server


def names(found: list[dict[str, Any]]) -> list[str]:
    return [run["id"] for run in found]


def test_runs_of_other_machines_and_of_no_worker_are_left_alone(server: Server):
    server.add("ours", "RUNNING", HERE)
    server.add("theirs", "RUNNING", THERE)
    server.add("served", "RUNNING", None)
    server.add("taken", "PENDING", None)
    assert names(runs.of_this_machine(Options())) == ["ours", "taken"]
    server.online = [HERE, THERE]
    assert names(runs.of_this_machine(Options())) == ["ours"]
    assert server.asked == [{"name": {"any_": ["rml"]}}] * 2


def test_the_workers_of_a_service_end_their_runs_at_once(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(processes.MARK, "folder")
    monkeypatch.setattr(processes, "runs_here", lambda: {"alive"})
    for name in ("gone", "alive", "busy"):
        server.add(name, "RUNNING", HERE)
    server.add("stopped", "CANCELLING", HERE)
    server.add("taken", "PENDING", HERE, 20)
    server.add("perhaps another's", "PENDING", HERE, 1)
    survival.keep(HERE, lambda: ["busy"])
    why = "Its process is gone"
    assert server.told == [("gone", "Crashed", why), ("stopped", "Cancelled", "Cancelled"), ("taken", "Crashed", why)]


def test_runs_of_workers_that_are_gone_are_ended_when_nothing_is_heard_of_them(server: Server):
    server.add("silent", "RUNNING", THERE, 1000)
    server.add("heard", "RUNNING", THERE, 1000)
    server.add("young", "RUNNING", THERE, 100)
    server.add("own", "RUNNING", HERE, 1000)
    server.add("served", "RUNNING", None, 1000)
    server.heard = ["heard"]
    survival.keep(HERE, list, 100)
    assert server.told == []
    survival.keep(HERE, list, 1000)
    why = "No sign of life from its process: the worker that has begun it is gone"
    assert server.told == [("silent", "Crashed", why), ("own", "Crashed", why)]


def test_what_waits_for_its_node_is_not_taken_for_lost(server: Server):
    server.add("waits", "PENDING", THERE, 1000)
    server.add("lost", "PENDING", None, 1000)
    server.online = [HERE, THERE]
    survival.keep(HERE, list, 1000)
    why = "A worker has taken this run, and it has not begun: the worker is gone"
    assert server.told == [("lost", "Crashed", why)]
    server.online = [HERE]
    survival.keep(HERE, list, 1000)
    assert server.told[1:] == [("waits", "Crashed", why), ("lost", "Crashed", why)]


def test_crashed_runs_are_scheduled_by_their_worker_or_by_another_one_where_that_is_gone(server: Server):
    server.add("own", "CRASHED", HERE, 60)
    server.add("left", "CRASHED", THERE, 60)
    server.add("served", "CRASHED", None, 60)
    server.add("now", "CRASHED", HERE, 1)
    server.online = [HERE, THERE]
    survival.keep(HERE, list)
    assert [name for name, _, _ in server.told] == ["own"]
    server.online = [HERE]
    survival.keep(HERE, list)
    assert [name for name, _, _ in server.told[1:]] == ["own", "left"]


def test_each_run_is_told_once_as_soon_as_it_has_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch):
    code = "import os, sys; sys.stdin.readline(); os.setsid(); print('on', flush=True); sys.stdin.readline()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    own = SimpleNamespace(children=lambda: [psutil.Process(child.pid)])
    monkeypatch.setattr(worker, "_myself", lambda: own)
    try:
        told: set[tuple[int, float]] = set()
        worker._tell_runs(signal.SIGTERM, told)
        assert child.pid not in {pid for pid, _ in told}
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "on\n"
        worker._tell_runs(signal.SIGTERM, told)
        assert child.pid in {pid for pid, _ in told}
        assert child.wait(30) == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_a_run_that_the_server_refuses_to_put_back_leaves_the_others(monkeypatch: pytest.MonkeyPatch):
    told = []

    def call(url: str, path: str, body: Any = None) -> Any:
        run = path.split("/")[2]
        if run == "gone":
            raise urllib.error.HTTPError(url, 404, "Not Found", Message(), None)
        if body is not None and run == "stuck":
            raise urllib.error.HTTPError(url, 500, "Internal Server Error", Message(), None)
        if body is not None:
            told.append((run, body["state"]["name"]))
        return {"id": run, "state_type": "CANCELLING" if run == "stopped" else "RUNNING"}

    monkeypatch.setattr(api, "call", call)
    found = [{"id": name, "name": f"a-{name}"} for name in ("gone", "stuck", "stopped", "on")]
    line = (
        "warning: run a-stuck could not be put back: the server refuses it (500 Internal Server Error); "
        "`prefect flow-run delete stuck` frees it"
    )
    assert runs.put_back(Options(), found, "why") == runs.PutBack(1, [line])
    assert told == [("stopped", "Cancelled"), ("on", "AwaitingRetry")]
