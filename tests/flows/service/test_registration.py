"""What the server is told: deployments as they stand in the file, automations only where they differ."""

from __future__ import annotations

import importlib

import pytest

from flows.service import registration
from flows.service.state import Options


def test_the_deployments_of_the_file_name_flows_that_are_there() -> None:
    entries = {each["name"]: each for each in registration.listed()}
    assert entries.keys() >= {"train", "evaluate", "retrain"}
    for entry in entries.values():
        module, _, name = entry["entrypoint"].rpartition(".")
        assert getattr(importlib.import_module(module), name).name == "rml"
        assert entry["description"].strip()
        assert entry["work_pool"]["name"] in registration.POOLS


def test_retraining_runs_once_at_a_time() -> None:
    retrain = next(each for each in registration.listed() if each["name"] == "retrain")
    assert retrain["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}


@pytest.mark.parametrize(
    ("gpu_runs", "cpu_runs", "pool"), [(2, 2, "gpu"), (0, 2, "cpu"), (2, 0, "gpu")], ids=["both", "cpu", "gpu"]
)
def test_a_deployment_runs_where_a_worker_is(gpu_runs: int, cpu_runs: int, pool: str) -> None:
    assert registration._pool("gpu", Options(gpu_runs=gpu_runs, cpu_runs=cpu_runs)) == pool


def test_what_the_server_says_besides_makes_no_difference() -> None:
    body = {"name": "a", "trigger": {"expect": ["one", "two"], "within": 10.0}, "actions": [{"type": "x"}]}
    found = {
        "id": "1",
        "name": "a",
        "trigger": {"id": "2", "expect": ["two", "one"], "within": 10.0},
        "actions": [{"type": "x", "force": False}],
    }
    assert registration._says(found, body)
    for different in (
        {**body, "name": "b"},
        {**body, "trigger": {"expect": ["one"]}},
        {**body, "trigger": {"within": 11.0}},
        {**body, "actions": []},
        {**body, "tags": []},
    ):
        assert not registration._says(found, different)
