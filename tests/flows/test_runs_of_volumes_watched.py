"""A tracked run on a volume: the phases of the plan with their edges, what is cached, and the artifacts."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RML = Path(sys.executable).with_name("rml")
SECTION: dict[str, Any] = {
    "outfile": "out.txt",
    "layers": [
        {"class_name": "Conv2D", "config": {"filters": 2, "kernel_size": 3, "padding": "same"}},
        {"class_name": "Activation", "config": {"activation": "softmax"}},
    ],
    "data": {
        "type": "numpy",
        "input_path": "volume.npy",
        "target_path": "mask.npy",
        "test_input_path": "held_out.npy",
        "test_target_path": "mask_held_out.npy",
        "target_is_mask": True,
        "slicers": [
            {"name": "xz-slices", "sizes": [8, 1, 8], "padding": 2},
            {"name": "yz-slices", "sizes": [1, 8, 8], "padded_sizes": [1, 12, 12], "strides": [2, 4, 8]},
        ],
        "hdf5_outfile": "prediction.h5",
        "batch_size": 16,
        "preload": True,
    },
    "optimizer": {"type": "Adam"},
    "loss": {"function": "Dice"},
}


def ask(environment: dict[str, str], path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def run(environment: dict[str, str], file: Path) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """The flow run, its task runs in the order of their start, and what the command said."""
    environment = {**environment, "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}
    finished = subprocess.run([RML, "run", file], env=environment, capture_output=True, text=True, timeout=200)
    assert (finished.returncode, finished.stderr) == (0, "")
    flow_run = ask(environment, "flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
    runs = ask(environment, "task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run["id"]]}}, "limit": 200})
    return flow_run, sorted(runs, key=lambda each: each["start_time"]), finished.stdout


@pytest.mark.slow
def test_a_volume_on_the_server(
    run_file: Callable[..., Path],
    rml: Callable[..., tuple[int, str, str]],
    prefect_server: dict[str, str],
    tmp_path: Path,
):
    random = np.random.default_rng(0)
    for name, mask, height in (("volume", "mask", 16), ("held_out", "mask_held_out", 12)):
        volume = random.random((height, 20, 24)).astype(np.float32)
        np.save(tmp_path / name, volume)
        np.save(tmp_path / mask, (volume > 0.5).astype(np.uint8))
    file = run_file({"neural_network": SECTION})
    planned = json.loads(rml("plan", file, "--json")[1])
    flow_run, runs, said = run(prefect_server, file)
    assert [each["name"] for each in runs] == [phase["name"] for phase in planned["phases"]]
    assert [each["name"] for each in runs] == [
        *("load training", "slice training xz-slices", "slice training yz-slices"),
        *("load test", "slice test xz-slices", "slice test yz-slices"),
        *("build network", "train epoch 1", "evaluate epoch 1", "assemble prediction.h5, epoch 1"),
    ]
    names = {each["id"]: each["name"] for each in runs}
    edges = {
        (names[source["id"]], each["name"])
        for each in runs
        for sources in each["task_inputs"].values()
        for source in sources
        if source["input_type"] == "task_run"
    }
    assert edges == {
        *((f"load {role}", f"slice {role} {name}-slices") for role in ("training", "test") for name in ("xz", "yz")),
        *((f"slice {role} {name}-slices", "build network") for role in ("training", "test") for name in ("xz", "yz")),
        *((f"load {role}", "build network") for role in ("training", "test")),
        ("build network", "train epoch 1"),
        ("train epoch 1", "evaluate epoch 1"),
        ("evaluate epoch 1", "assemble prediction.h5, epoch 1"),
    }
    assert f"  {tmp_path}/prediction.h5\n  {tmp_path}/prediction_sections.png\n" in said

    found = ask(prefect_server, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run["id"]]}}})
    by_key = {each["key"]: each for each in found if each["key"]}
    assert by_key.keys() == {"summary", "run-file", "network", "epochs", "curves", "slice-sets", "sections"}
    rows = json.loads(by_key["slice-sets"]["data"])
    assert rows[0] == {
        "role": "training",
        "set": "xz-slices",
        "slices": "2 x 20 x 3 = 120",
        "sample": "1 x 12 x 12",
        "padding": "2 + 2, 0 + 0, 2 + 2",
        "padding and fill": "55.6 %",
        "overlap": "none",
        "in gaps": "0 %",
        "prediction": "",
    }
    assert [rows[3][key] for key in ("slices", "overlap", "in gaps", "prediction")] == [
        *("6 x 4 x 3 = 72", "0 %, 50 %, 0 %", "50 %", "2 x 12 x 20 x 24")
    ]
    picture = base64.b64decode(by_key["sections"]["data"].partition(",")[2])
    assert picture == (tmp_path / "prediction_sections.png").read_bytes()
    progress = {each["task_run_id"]: each for each in found if each["type"] == "progress"}
    phases = {"load training", "load test", "evaluate epoch 1", "assemble prediction.h5, epoch 1"}
    assert {names[task] for task in progress} == phases
    assert {each["data"] for each in progress.values()} == {100.0}

    _, again, _ = run(prefect_server, file)
    states = {each["name"]: each["state"]["name"] for each in again}
    cached = {name for name in states if name.startswith(("load", "slice"))}
    assert {name for name, state in states.items() if state == "Cached"} == cached
