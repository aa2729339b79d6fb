"""Disasters of every kind to real runs of a real service, each at random moments: `chaos.py` has them in one table.

Every run has to end well by itself, or after `prefect flow-run retry`, and to leave what an undisturbed one leaves.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow


def _chaos() -> Any:
    spec = importlib.util.spec_from_file_location("rml_chaos", Path(__file__).with_name("chaos.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rml_chaos"] = module
    spec.loader.exec_module(module)
    return module


chaos = _chaos()


@pytest.fixture(scope="module")
def campaign(put_up: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    def one(home: Path) -> Any:
        runs = ("--gpu-runs", "0", "--cpu-runs", str(chaos.SIDE_BY_SIDE))
        return put_up(home, *runs, environment=chaos.ENVIRONMENT)

    with chaos.campaign(tmp_path_factory.mktemp("survival"), 6, one) as campaign:
        campaign.reference(False)
        yield campaign
        assert campaign.stray() == []


def disturbed(campaign: Any, *kinds: str) -> list[Any]:
    """Runs side by side, each of which is disturbed at a moment of its own, when they have ended."""
    runs = [campaign.submit(kind, volume="dask" in kind) for kind in kinds]
    campaign.disturb_all(runs)
    assert [(run.kind, run.position, run.wrong) for run in runs if run.wrong] == []
    return runs


def test_the_process_of_a_run_is_killed_or_told_to_end(campaign: Any):
    runs = disturbed(campaign, "kill_flow", "end_flow", "kill_flow")
    assert [run.retries for run in runs] == [0, 0, 0]
    # What a killed process was in the middle of is not shown in progress for ever.
    until = time.monotonic() + chaos.PATIENCE
    while any(phases_in_progress(campaign.service, run.id) for run in runs):
        assert time.monotonic() < until
        time.sleep(1)


def phases_in_progress(service: Any, run: str) -> list[str]:
    begun = {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}
    found = service.call("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "task_runs": begun})
    return [each["name"] for each in found]


def test_the_worker_is_killed_or_told_to_end(campaign: Any):
    """The run of a killed worker goes on; one that a worker has told to end goes on when the worker is back."""
    runs = disturbed(campaign, "kill_worker", "end_worker")
    assert [run.retries for run in runs] == [0, 0]


def test_a_worker_that_is_killed_when_it_has_just_taken_a_run_leaves_it_to_the_next(campaign: Any):
    """Nothing but the worker's name on it says who was to start it."""
    worker = campaign.worker()
    run = campaign.submit("kill_worker")
    until = time.monotonic() + chaos.PATIENCE
    while (found := campaign.service.flow_run(run.id))["state_type"] == "SCHEDULED":
        assert time.monotonic() < until
    os.kill(worker, signal.SIGKILL)
    assert found["labels"]["prefect.worker.name"].startswith("cpu on ")
    campaign.finish(run)
    assert (run.wrong, run.retries) == ([], 0)


def test_the_server_is_killed_or_told_to_end(campaign: Any):
    runs = disturbed(campaign, "kill_server", "end_server")
    assert [run.retries for run in runs] == [0, 0]


def test_the_server_is_away_for_a_minute(campaign: Any, monkeypatch: pytest.MonkeyPatch):
    """Runs go on meanwhile; one whose process is killed goes on when somebody can be told of it."""
    monkeypatch.setattr(campaign, "away", 60.0)
    runs = disturbed(campaign, "server_away", "kill_flow")
    assert [run.retries for run in runs] == [0, 0]


def test_a_run_is_cancelled_in_the_ui_and_by_the_command(campaign: Any):
    runs = disturbed(campaign, "cancel_in_ui", "cancel_by_command", "kill_worker_then_cancel")
    assert all(run.retries == 1 or run.at()[0] == chaos.EPOCHS for run in runs)
    # Who cancels is not told of a crash, and nothing is begun anew.
    for run in runs[:2]:
        states = campaign.service.call(f"/flow_run_states/?flow_run_id={run.id}")
        assert not [state for state in states if state["type"] == "CRASHED"]


def test_a_dask_worker_is_killed_or_told_to_end(campaign: Any):
    campaign.reference(True)
    for kind in ("kill_dask_worker", "end_dask_worker"):
        (run,) = disturbed(campaign, kind)
        assert run.retries == 0


def test_everything_is_killed_at_once(campaign: Any):
    """Nobody is left to say that the run has ended: the missing heartbeat says so, or the worker when it is back."""
    runs = disturbed(campaign, "kill_everything", "kill_worker_and_flow")
    assert [run.retries for run in runs] == [0, 0]


def test_a_run_that_is_taken_for_dead_is_not_run_twice(campaign: Any):
    """Its machine stands still for a while, and the server declares it crashed: another attempt waits for it."""
    run = campaign.submit("declare_crashed")
    until = time.monotonic() + chaos.PATIENCE
    while run.at() < (2, 1):
        time.sleep(0.02)
    first = campaign.service.processes(run.id)
    for process in first:
        process.suspend()
    try:
        campaign.disturb(run, (2, 1))
        while "waits until an earlier one lets go" not in campaign.service.log(run.id):
            assert time.monotonic() < until
            time.sleep(0.5)
    finally:
        for process in first:
            process.resume()
    campaign.finish(run)
    assert (run.wrong, run.retries) == ([], 0)


def test_one_restart_too_many_ends_failed_and_a_retry_goes_on(campaign: Any):
    run = campaign.submit("kill_flow")
    for _ in range(int(chaos.ENVIRONMENT["RML_RETRIES"]) + 1):
        campaign.disturb(run, (0, 0))
        until = time.monotonic() + chaos.PATIENCE
        while campaign.service.processes(run.id) and time.monotonic() < until:
            time.sleep(0.05)
    run.position = (0, 0)
    found = campaign.ended(run)
    assert found["state_type"] == "FAILED"
    assert "RML_RETRIES is" in found["state"]["message"]
    campaign.finish(run)
    assert (run.wrong, run.retries) == ([], 1)


def test_a_retraining_and_an_evaluation_that_are_killed_come_to_what_they_would_have(campaign: Any):
    service = campaign.service
    reference = campaign.reference(False).folder / "checkpoints" / "model_checkpoint_best.pt"
    champion = campaign.home / "champion"
    section = chaos.section(campaign.data, campaign.home / "nowhere", False)
    run = chaos.Run(
        service.submit(section, "retrain", champion=str(champion)), champion / "rounds" / "0001", False, "kill_flow", 0
    )
    campaign.disturb(run, (3, 7))
    found = campaign.ended(run)
    assert (found["state_type"], found["run_count"], found["state"]["name"]) == ("COMPLETED", 2, "promoted")
    assert f"resuming {champion}/rounds/0001/checkpoints/model_checkpoint_2.pt" in service.log(run.id)
    networks = [torch.load(path, weights_only=True)["network"] for path in (champion / "champion.pt", reference)]
    assert chaos.same(*networks)
    assert len((champion / "history.jsonl").read_text().splitlines()) == 1

    folder = campaign.home / "evaluated"
    folder.mkdir()
    given = {
        "checkpoint": str(champion / "champion.pt"),
        "test_input_path": section["data"]["test_input_path"],
        "outfile": str(folder / "out.txt"),
    }
    run = chaos.Run(service.create("evaluate", given), folder, False, "kill_flow", 0)
    service.wait(run.id, "RUNNING")
    campaign.kill_flow(run)
    found = campaign.ended(run)
    assert (found["state_type"], found["run_count"]) == ("COMPLETED", 2)
    (row,) = map(json.loads, (folder / "out_metrics.jsonl").read_text().splitlines())
    (judged,) = map(json.loads, (champion / "history.jsonl").read_text().splitlines())
    assert row["accuracy"] == judged["challenger"]["value"]
