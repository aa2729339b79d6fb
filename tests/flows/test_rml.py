"""The flow on a real server: the phases of the plan, their edges, what is cached, and the artifacts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import pytest

from flows.parameters import refuse_base
from flows.retrain import plan_of
from rml_core.config.problem import Refused

RML = Path(sys.executable).with_name("rml")


def ask(environment: dict[str, str], path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def run(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**environment, "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    command = [RML, "run", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def task_runs(environment: dict[str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The latest flow run and its task runs, in the order of their start."""
    flow_run = ask(environment, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
    filters = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}, "limit": 200}
    runs = ask(environment, "task_runs/filter", filters)
    return flow_run, sorted(runs, key=lambda each: each["start_time"])


def test_the_flow_does_what_the_plan_says(
    classification: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Callable[..., tuple[int, str, str]],
    prefect_server: dict[str, str],
    tmp_path: Path,
):
    classification["neural_network"]["data"]["transforms"].insert(0, {"resize": [10, 10]})
    file = run_file(classification)
    planned = json.loads(rml("plan", file, "--json")[1])
    finished = run(prefect_server, file)
    assert (finished.returncode, finished.stderr) == (0, "")
    flow_run, runs = task_runs(prefect_server)
    assert flow_run["state"]["type"] == "COMPLETED"
    assert [each["name"] for each in runs] == [phase["name"] for phase in planned["phases"]]
    assert {each["state"]["name"] for each in runs} == {"Completed"}
    assert flow_run["parameters"] == {
        "neural_network": classification["neural_network"],
        "app": "dnn",
        "base": str(tmp_path),
        "resume": None,
        "ranks": None,
        "scheduler": None,
    }

    names = {each["id"]: each["name"] for each in runs}
    edges = {
        (names[source["id"]], each["name"])
        for each in runs
        for sources in each["task_inputs"].values()
        for source in sources
        if source["input_type"] == "task_run"
    }
    chain = ["build network"]
    for epoch in (1, 2, 3):
        chain += [f"train epoch {epoch}", f"checkpoint epoch {epoch}", f"evaluate epoch {epoch}"]
    assert edges == {
        ("load training", "transform training"),
        ("load test", "transform test"),
        ("transform training", "build network"),
        ("transform test", "build network"),
        *pairwise(chain),
    }

    artifacts = ask(prefect_server, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run["id"]]}}})
    assert {each["key"] for each in artifacts} == {"summary", "run-file", "network", "epochs", "curves"}
    assert (tmp_path / "out_report.png").exists()
    logs = ask(prefect_server, "logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run["id"]]}}, "limit": 200})
    assert any(line["message"].startswith("epoch 3/3  loss ") for line in logs)

    again = run(prefect_server, file)
    assert again.returncode == 0
    states = {each["name"]: each["state"]["name"] for each in task_runs(prefect_server)[1]}
    cached = {"load training", "transform training", "load test", "transform test"}
    assert {name for name, state in states.items() if state == "Cached"} == cached


@pytest.mark.slow
def test_what_is_cached_is_made_again_when_it_is_damaged_or_the_files_change(
    classification: dict[str, Any],
    run_file: Callable[..., Path],
    prefect_server: dict[str, str],
    tmp_path: Path,
):
    classification["neural_network"]["num_epochs"] = 1
    section = classification["neural_network"]["data"]
    training = tmp_path / "train"
    for source in Path(section["input_path"]).rglob("*.png"):
        target = training / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    section["input_path"] = str(training)
    file = run_file(classification)
    assert run(prefect_server, file).returncode == 0
    weights = (tmp_path / "out_train.txt").read_text()

    (stored,) = Path(os.environ["XDG_CACHE_HOME"]).glob("rml/prepared/training-*/inputs*.npy")
    stored.write_bytes(stored.read_bytes()[:-1])
    assert run(prefect_server, file).returncode == 0
    states = {each["name"]: each["state"]["name"] for each in task_runs(prefect_server)[1]}
    assert (states["load training"], states["load test"]) == ("Completed", "Cached")

    def losses(text: str) -> list[list[str]]:
        return [line.split()[3:] for line in text.splitlines()]

    assert losses((tmp_path / "out_train.txt").read_text()) == losses(weights)

    changed = training / "left" / "img0.png"
    cv2.imwrite(str(changed), cv2.imread(str(changed), cv2.IMREAD_GRAYSCALE) // 2)
    assert run(prefect_server, file).returncode == 0
    states = {each["name"]: each["state"]["name"] for each in task_runs(prefect_server)[1]}
    assert (states["load training"], states["load test"]) == ("Completed", "Cached")
    assert losses((tmp_path / "out_train.txt").read_text()) != losses(weights)


def test_a_failure_is_said_in_one_line_with_its_phase(
    classification: dict[str, Any], run_file: Callable[..., Path], prefect_server: dict[str, str]
):
    section = classification["neural_network"]
    section["optimizer"] = {"type": "SGD", "learning_rate": 1e30}
    finished = run(prefect_server, run_file(classification))
    assert finished.returncode == 1
    assert finished.stderr.startswith("train epoch 1: the loss became nan in epoch 1, batch ")
    assert len(finished.stderr.splitlines()) == 1
    flow_run, _ = task_runs(prefect_server)
    assert flow_run["state"]["type"] == "FAILED"
    assert finished.stderr.strip() in flow_run["state"]["message"]


@pytest.mark.slow
def test_a_flow_that_no_command_started_logs_to_its_server_but_not_each_of_many_epochs(
    classification: dict[str, Any], prefect_server: dict[str, str], tmp_path: Path
):
    program = "import json, sys; from flows.rml import rml; rml(**json.loads(sys.argv[1]), base=sys.argv[2])"
    classification["neural_network"]["num_epochs"] = 101
    command = [sys.executable, "-c", program, json.dumps(classification), str(tmp_path)]
    subprocess.run(command, env=prefect_server, capture_output=True, timeout=200, check=True)
    flow_run, _ = task_runs(prefect_server)
    logs = ask(prefect_server, "logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run["id"]]}}, "limit": 200})
    epochs = [line["message"].split("/")[0] for line in logs if "/101  loss " in line["message"]]
    assert epochs[0] == "epoch 1"
    assert epochs.count("epoch 101") == 1
    assert len(epochs) == len(set(epochs)) < 101


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("data", 'base: "data" is relative, and nothing says to which folder\n    REMEDY'),
        ("$RML_DATA", 'base: "$RML_DATA" is relative, and nothing says to which folder\n    REMEDY'),
        (
            "$RML_NONE",
            'base: "$RML_NONE": $RML_NONE is not set on this worker\n'
            "    allowed: variables whose names begin with RML_, set where the worker runs\n"
            "    set it where the worker is started, or write the path out",
        ),
        ("$RML_FOLDER", None),
        ("/data", None),
        ("s3://bucket/data", None),
        (None, None),
    ],
)
def test_a_worker_takes_no_folder_that_is_relative_to_its_own(
    base: str | None, message: str | None, monkeypatch: pytest.MonkeyPatch
):
    refuse_base("data")
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "id")
    monkeypatch.setenv("RML_DATA", "data")
    monkeypatch.setenv("RML_FOLDER", "/data")
    if message is None:
        refuse_base(base)
        return
    with pytest.raises(Refused) as refused:
        refuse_base(base)
    assert str(refused.value) == message.replace("REMEDY", "give it as an absolute path, or a URL")
    options = {"champion": "/champion"}
    with pytest.raises(Refused) as refused:
        plan_of(options, {}, None, base=base)
    assert str(refused.value) == message.replace("REMEDY", "give it as an absolute path, or a URL")


def test_the_published_schema_takes_what_our_validator_takes(classification: dict[str, Any]):
    from flows.rml import rml as flow

    published = flow.parameters.model_dump()
    assert set(published["properties"]) == {"neural_network", "app", "base", "resume", "ranks", "scheduler"}
    schema = published["properties"]["neural_network"]
    assert "$ref" not in json.dumps(schema)
    section = classification["neural_network"]
    for name in ("Adam", "adam", "ADAM"):
        section["optimizer"]["type"] = name
        section["data"]["transforms"] = [{"Random_Horizontal_Flip": 0.5}]
        jsonschema.validate(section, schema)
    section["optimizer"]["learning_rate"] = "fast"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(section, schema)
