"""Retraining by the clock, on a real service: data that arrive between two firings, firings that overlap."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE = 240.0


@pytest.fixture
def digits(tmp_path: Path) -> Callable[[str, range], None]:
    """Writes real digits (scikit-learn's) as pictures into the classes' folders."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)

    def write(role: str, numbers: range) -> None:
        for number in numbers:
            folder = tmp_path / "data" / role / str(labels[number])
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{number}.png"), (pixels[number].reshape(8, 8) * 15).astype(np.uint8))

    return write


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    section = {
        "num_epochs": 3,
        "layers": [
            {"class_name": "Flatten", "config": {}},
            {"class_name": "Dense", "config": {"units": 10, "activation": "log_softmax"}},
        ],
        "data": {
            "input_type": "images",
            "target_type": "labels",
            "input_path": "data/train",
            "test_input_path": "data/test",
            "grayscale": True,
            "preload": True,
            "batch_size": 16,
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.01},
        "loss": {"function": "NLL"},
    }
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"neural_network": section}))
    return path


def firings(service: Any, name: str, *states: str) -> list[dict[str, Any]]:
    """The flow runs of a schedule in states of these names, in the order of their times."""
    body = {
        "deployments": {"name": {"any_": [f"retrain-{name}"]}},
        "flow_runs": {"state": {"name": {"any_": list(states)}}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    found: list[dict[str, Any]] = service.call("/flow_runs/filter", body)
    return found


def wait_for(service: Any, name: str, *states: str, beside: set[str] | None = None) -> dict[str, Any]:
    """The first flow run of a schedule that gets into one of these states, and is not one of those `beside`."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for run in firings(service, name, *states):
            if run["id"] not in (beside or ()):
                return run
        failed = firings(service, name, "Failed", "Crashed")
        assert not failed, service.log(failed[0]["id"])
        time.sleep(0.3)
    return pytest.fail(f"no firing of {name} is {' or '.join(states)}: {service.run('rml', 'schedule').stdout}")


def patiently(ask: Callable[[], Any]) -> Any:
    """What the server answers, as soon as it is there."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


def remove(service: Any, name: str) -> str:
    """Remove a schedule, as soon as the firing that is in progress has ended; gives what is said."""
    until = time.monotonic() + PATIENCE
    while (removed := service.run("rml", "schedule", "--remove", name)).returncode and time.monotonic() < until:
        assert "wait until it has ended" in removed.stderr
    return str(removed.stdout)


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_schedule_trains_where_data_are_new_and_keeps_the_better_one(
    service: Any, digits: Callable[[str, range], None], run_file: Path
):
    from rml_core.checkpoints import native

    digits("train", range(60))
    digits("test", range(1000, 1400))
    champion = run_file.parent / "champion"
    options = ("--every", "10s", "--name", "digits", "--overlap", "skip")
    made = service.run("rml", "schedule", run_file.name, *options, cwd=run_file.parent)
    try:
        assert (made.returncode, made.stderr) == (0, "")
        assert made.stdout.splitlines() == [
            "rml/retrain-digits: every 10s; where one takes longer, the next one is left out",
            f"run file   {run_file}: read at each firing, so that changes count from the next one on",
            f"champion   {champion}/champion.pt",
            "now        prefect deployment run rml/retrain-digits",
            "no more    rml schedule --remove digits",
        ]
        first = wait_for(service, "digits", "promoted")
        assert first["state"]["message"] == "round 1: the challenger is champion: the first one: there was no champion"
        nothing = wait_for(service, "digits", "nothing new")
        assert nothing["state"]["message"].startswith("nothing new since round 1 (")
        before = native.read(champion / "champion.pt", "")
        digits("train", range(60, 600))
        second = wait_for(service, "digits", "promoted", "kept", beside={first["id"]})
        assert second["state"]["name"] == "promoted", second["state"]["message"]
        again = wait_for(service, "digits", "nothing new", beside={nothing["id"], *_ids(service, "nothing new")})
        assert again["state"]["message"].startswith("nothing new since round 2 (")
        rows = history(champion)
        assert [(row["round"], row["promoted"]) for row in rows] == [(1, True), (2, True)]
        assert rows[1]["changes"] == {"training inputs": "540 new", "test inputs": "unchanged"}
        assert rows[1]["samples"] == {"training": 600, "test": 400}
        # Both on the same test data: the champion's figure is the one it got when it became champion.
        assert rows[1]["champion"]["value"] == rows[0]["challenger"]["value"]
        assert rows[1]["challenger"]["value"] > rows[1]["champion"]["value"]
        after = native.read(champion / "champion.pt", "")
        assert after["run_id"] == rows[1]["challenger"]["run_id"] != before["run_id"]
        listed = service.run("rml", "schedule").stdout
        assert "rml/retrain-digits: every 10s\n" in listed
        assert f"    champion  {champion}/champion.pt\n" in listed
        _check_page(service, second["id"], champion)
    finally:
        removed = remove(service, "digits")
    assert removed == f"rml/retrain-digits is removed; its champion stays in {champion}\n"


def _ids(service: Any, state: str) -> set[str]:
    return {run["id"] for run in firings(service, "digits", state)}


def _check_page(service: Any, run: str, champion: Path) -> None:
    """The report is an artifact, the phases say whose they are, and an event told of the new champion."""
    body = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    found = {each["key"]: each for each in service.call("/artifacts/filter", body)}
    assert found["champion"]["data"] == (champion / "rounds/0002/report.md").read_text()
    assert found["champion-and-challenger"]["data"].startswith("data:image/png;base64,")
    names = [each["name"] for each in service.call("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})]
    assert {"train epoch 3", "build challenger", "evaluate challenger", "evaluate champion"} <= set(names)
    until, events = time.monotonic() + 30, []
    while len(events) < 2 and time.monotonic() < until:
        wanted = {"filter": {"event": {"name": ["rml.champion.promoted"]}}}
        events = service.call("/events/filter", wanted)["events"]
        events = [each for each in events if each["resource"]["prefect.resource.id"] == f"rml.champion.{champion}"]
        time.sleep(0.3)
    assert sorted(each["payload"]["round"] for each in events) == [1, 2]


def test_a_firing_that_finds_the_one_before_still_running_waits_or_is_left_out(
    service: Any, digits: Callable[[str, range], None], run_file: Path
):
    digits("train", range(60))
    digits("test", range(1000, 1100))
    # In progress for long enough to be stopped.
    content = json.loads(run_file.read_text())
    content["neural_network"]["num_epochs"] = 200
    run_file.write_text(json.dumps(content))
    stopped = []
    try:
        first = {}
        for overlap in ("wait", "skip"):
            # Not by itself before next year.
            options = ("--cron", "0 0 1 1 *", "--name", overlap, "--champion", overlap, "--overlap", overlap)
            made = service.run("rml", "schedule", run_file, *options)
            assert made.returncode == 0, made.stderr
            first[overlap] = service.create(f"retrain-{overlap}", {})
            service.wait(first[overlap], "RUNNING")
            for process in service.processes(first[overlap]):
                process.send_signal(signal.SIGSTOP)
                stopped.append(process)
        second = {overlap: service.create(f"retrain-{overlap}", {}) for overlap in first}
        service.wait(second["wait"], "AwaitingConcurrencySlot")
        service.wait(second["skip"], "Cancelled")
        # A server that is killed knows whose turn it is when it is back: a run that it has forgotten would be ended.
        os.kill(service.pid("server"), signal.SIGKILL)
        lease = patiently(lambda: service.flow_run(first["wait"]))["state"]["state_details"]
        service.call(f"/v2/concurrency_limits/leases/{lease['deployment_concurrency_lease_id']}/renew", {})
        for process in stopped:
            process.send_signal(signal.SIGCONT)
        stopped.clear()
        states = [service.wait(each[overlap])["state"]["name"] for overlap in first for each in (first, second)]
        assert states == ["promoted", "nothing new", "promoted", "Cancelled"]
        assert [len(history(run_file.parent / overlap)) for overlap in first] == [1, 1]
    finally:
        for process in stopped:
            process.send_signal(signal.SIGCONT)
        for overlap in ("wait", "skip"):
            remove(service, overlap)
