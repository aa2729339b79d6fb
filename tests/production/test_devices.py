"""Runs that share a pretended device: on a server, and in two terminals without one."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LIMIT = f"gpu-{platform.node()}-0"
RML = str(Path(sys.executable).parent / "rml")


def until(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def phases(service: Any, run: str) -> dict[str, dict[str, Any]]:
    """The task runs of a flow run, by their names."""
    body = {"task_runs": {"flow_run_id": {"any_": [run]}}, "limit": 200}
    return {each["name"]: each for each in service.call("/task_runs/filter", body)}


def state_of(service: Any, run: str, phase: str) -> str:
    return str(phases(service, run).get(phase, {}).get("state_name", ""))


def held(service: Any, run: str) -> tuple[datetime, datetime]:
    """When a run began and ended to work on the device."""
    own = [each for name, each in phases(service, run).items() if name.startswith(("build", "train", "evaluate"))]
    times = [datetime.fromisoformat(each[key]) for each in own for key in ("start_time", "end_time") if each[key]]
    return min(times), max(times)


# More epochs than any of these tests has time for.
LONG = 3000


def section(classification: dict[str, Any], folder: Path, epochs: int) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    section: dict[str, Any] = json.loads(json.dumps(classification["neural_network"]))
    section["data"]["batch_size"] = 1
    return {**section, "num_epochs": epochs, "debug": False}


def test_runs_wait_for_the_device_that_another_holds(
    guarded: Any, classification: dict[str, Any], tmp_path: Path
) -> None:
    def submitted(name: str, epochs: int) -> str:
        folder = tmp_path / name
        return str(guarded.submit(section(classification, folder, epochs), base=str(folder)))

    long = submitted("long", LONG)
    until(lambda: state_of(guarded, long, "build network") == "Completed")
    second = submitted("second", 2)
    until(lambda: state_of(guarded, second, "wait for cuda:0") == "Running")
    # What needs no device is done.
    assert {state_of(guarded, second, f"load {role}") for role in ("training", "test")} <= {"Completed", "Cached"}
    name = guarded.flow_run(long)["name"]
    until(lambda: f"waiting: cuda:0 is held by flow run {name} of {tmp_path / 'long'} (process " in guarded.log(second))
    until(lambda: guarded.call(f"/v2/concurrency_limits/{LIMIT}")["active_slots"] == 1)

    # Cancelled while it waits, a run ends at once, and has not touched the device.
    third = submitted("third", 2)
    until(lambda: state_of(guarded, third, "wait for cuda:0") == "Running")
    guarded.call(f"/flow_runs/{third}/set_state", {"state": {"type": "CANCELLING"}})
    until(lambda: guarded.flow_run(third)["state_type"] == "CANCELLED")
    assert "build network" not in phases(guarded, third)

    # Edited on the server, the limit lets the second one in beside the first.
    guarded.call(f"/v2/concurrency_limits/{LIMIT}", {"limit": 2}, method="PATCH")
    guarded.wait(second, "COMPLETED")
    guarded.call(f"/v2/concurrency_limits/{LIMIT}", {"limit": 1}, method="PATCH")
    assert guarded.flow_run(long)["state_type"] == "RUNNING"
    assert held(guarded, long)[0] < held(guarded, second)[0]

    # A holder that is killed holds nothing any more: who waits goes on, and the killed one waits for him.
    fourth = submitted("fourth", 2)
    until(lambda: state_of(guarded, fourth, "wait for cuda:0") == "Running")
    for process in guarded.processes(long):
        process.send_signal(signal.SIGKILL)
    killed = datetime.now().astimezone()
    guarded.wait(fourth, "COMPLETED")
    began, ended = held(guarded, fourth)
    assert began > killed
    until(lambda: guarded.flow_run(long)["run_count"] == 2)
    again = [each for each in phases(guarded, long).values() if each["start_time"]]
    later = [datetime.fromisoformat(each["start_time"]) for each in again if each["name"].startswith("train")]
    assert not [each for each in later if began < each < ended]
    guarded.call(f"/flow_runs/{long}/set_state", {"state": {"type": "CANCELLING"}})
    until(lambda: guarded.flow_run(long)["state_type"] == "CANCELLED")
    until(lambda: guarded.call(f"/v2/concurrency_limits/{LIMIT}")["active_slots"] == 0)


@pytest.fixture
def terminal(tmp_path: Path, classification: dict[str, Any]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `rml run` on a run file of so many epochs, as in a terminal of its own."""
    started: list[subprocess.Popen[str]] = []
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RML_DEVICES": "pretended:2",
        "RML_LOCKS": str(tmp_path / "locks"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }

    def start(name: str, epochs: int, device: str = "cuda:1", **variables: str) -> subprocess.Popen[str]:
        file = tmp_path / name / "run.json"
        made = section(classification, file.parent, epochs)
        file.write_text(json.dumps({"neural_network": {**made, "device": device}}))
        command = [RML, "run", "--untracked", str(file)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env={**environment, **variables}, **pipes))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.communicate()


def said(process: subprocess.Popen[str], words: str) -> str:
    """The next line that has these words."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return line
    pytest.fail(f"{words!r} was not said:\n{''.join(seen)}")


def test_two_terminals_share_as_far_as_they_may(terminal: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    first = terminal("first", LONG)
    said(first, "epoch 2/")
    waiting, interrupted = terminal("waiting", 2), terminal("interrupted", 2)
    for process in (waiting, interrupted):
        line = said(process, "waiting: ")
        assert line.startswith(f"waiting: cuda:1 is held by {tmp_path}/first/run.json (process {first.pid}, since ")
    # The other device is free, and so is this one for who may share it.
    assert terminal("elsewhere", 2, "auto").wait(200) == 0
    # Who waits came first.
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(60) == 130
    assert not (tmp_path / "waiting" / "checkpoints" / "model_checkpoint_1.pt").exists()
    first.send_signal(signal.SIGKILL)
    said(waiting, "cuda:1 is free, after ")
    assert waiting.wait(200) == 0
    assert (tmp_path / "waiting" / "checkpoints" / "model_checkpoint_2.pt").exists()
    assert [path.name for path in (tmp_path / "locks").glob("waits.*")] == []


def test_two_terminals_that_may_share_a_device_do(terminal: Callable[..., subprocess.Popen[str]]) -> None:
    first = terminal("first", LONG, RML_GPU_RUNS="2")
    said(first, "epoch 2/")
    second = terminal("second", 2, RML_GPU_RUNS="2")
    output, _ = second.communicate(timeout=200)
    assert second.returncode == 0
    assert "waiting" not in output
    assert first.poll() is None
