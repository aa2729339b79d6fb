"""Who is told of what: a webhook, by automations of a real server, and Prometheus."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def told(receiver: Any, event: str, run: str) -> dict[str, Any]:
    """What was told of a run."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for path, kind, body in list(receiver.told):
            if body["event"] == event and body["run"] == run:
                assert (path, kind) == (f"/hooks/{receiver.secret}", "application/json")
                return body
        time.sleep(0.2)
    pytest.fail(f"{event} of {run} was not told: {receiver.told}")


def test_the_webhook_is_told_of_what_happens(
    guarded: Any, receiver: Any, classification: dict[str, Any], tmp_path: Path
) -> None:
    section = classification["neural_network"]
    broken = {**section, "optimizer": {"type": "SGD", "learning_rate": 1e30}}
    run = guarded.submit(broken, base=str(tmp_path))
    ended = guarded.wait(run, "FAILED")
    body = told(receiver, "failed", ended["name"])
    assert body["deployment"] == "train"
    assert body["run_id"] == run
    assert len([each for _, _, each in receiver.told if each["event_id"] == body["event_id"]]) == 1
    assert body["state"] == "Failed"
    assert body["reason"] == ended["state"]["message"]
    assert "the loss became nan in epoch 1" in body["reason"]
    assert "Traceback" not in guarded.log(run)
    assert body["url"] == f"{guarded.url}/runs/flow-run/{run}"
    assert body["text"].startswith(f"rml: {ended['name']} has failed: ")
    assert body["text"].endswith(body["url"])

    # Longer than any run should take, as this service was told.
    (tmp_path / "long").mkdir()
    slow = {**section, "num_epochs": 3000, "data": {**section["data"], "batch_size": 1}}
    long = guarded.submit(slow, base=str(tmp_path / "long"))
    name = guarded.flow_run(long)["name"]
    guarded.wait(long, "RUNNING")
    body = told(receiver, "stalled", name)
    assert body["text"].startswith(f"rml: {name} has not ended after 10 s: ")
    assert body["url"] == f"{guarded.url}/runs/flow-run/{long}"

    # A better model, as a retraining tells of it.
    payload = {"round": 2, "why": "accuracy 0.9 is better than 0.8", "metric": "accuracy", "value": 0.9}
    event = {
        "id": "7b0c6b59-fd54-4ba1-aac2-b1b6f6977e88",
        "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "event": "rml.champion.promoted",
        "resource": {"prefect.resource.id": f"rml.champion.{tmp_path}", "prefect.resource.name": "champion"},
        "related": [{"prefect.resource.id": f"prefect.flow-run.{long}", "prefect.resource.role": "flow-run"}],
        "payload": {**payload, "champion_value": 0.8, "checkpoint": "champion/champion.pt"},
    }
    guarded.call("/events", [event])
    body = told(receiver, "better model", name)
    assert body["reason"] == "accuracy 0.9 is better than 0.8"
    assert (body["metric"], body["value"], body["champion_value"]) == ("accuracy", 0.9, 0.8)
    assert body["checkpoint"] == "champion/champion.pt"

    # The address is a secret: neither the server's answers nor the processes of runs show it.
    guarded.call(f"/flow_runs/{long}/set_state", {"state": {"type": "CANCELLING"}})
    assert not [process for process in guarded.processes() if receiver.secret in str(process.environ())]
    blocks = guarded.call("/block_documents/filter", {})
    assert receiver.secret not in json.dumps(blocks)
    end = time.monotonic() + 120
    while guarded.flow_run(long)["state_type"] != "CANCELLED":
        assert time.monotonic() < end
        time.sleep(0.2)

    # And nobody is told any more.
    assert guarded.run("rml", "up", "--webhook", "none").returncode == 0
    names = [each["name"] for each in guarded.call("/automations/filter", {})]
    assert not [each for each in names if each.startswith("rml: tells")]
    # Nor was anybody told of a crash when it was cancelled.
    assert [each["event"] for _, _, each in receiver.told if each["run"] == name] == ["stalled", "better model"]


def metrics(url: str) -> dict[str, float]:
    """As Prometheus reads them: sums over labels."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {family.name: sum(sample.value for sample in family.samples) for family in families}


def test_prometheus_is_answered(guarded: Any) -> None:
    assert metrics(f"{guarded.api}/metrics")["process_resident_memory_bytes"] > 1e7
    first = int(guarded.environment["RML_METRICS_PORT"])
    for port in (first, first + 1):
        found = metrics(f"http://127.0.0.1:{port}/metrics")
        assert found["process_resident_memory_bytes"] > 1e7
        assert found["rml_runs_in_progress"] >= 0


def test_what_is_no_address_is_refused(guarded: Any) -> None:
    refused = guarded.run("rml", "up", "--webhook", "hooks.example.org/T0K3N")
    assert refused.returncode == 2
    assert refused.stderr == (
        "rml up: 1 problem\n\n--webhook: is no address\n    allowed: https://..., or none to tell nobody any more\n"
    )
