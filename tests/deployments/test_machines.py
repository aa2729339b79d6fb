"""Runs on several machines: two servers on PostgreSQL, a worker and a Dask cluster elsewhere, one shared folder."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCHEDULER = "tcp://dask-scheduler:8786"
PHASES = ["load training", "load test", "slice training slice_set_1", "train epoch 1", "checkpoint epoch 1"]
# Asks a server for the states of all flow runs and task runs, with the password and without.
ASK = """
import base64, json, os, sys, urllib.error, urllib.request as web
def ask(path, body, **headers):
    request = web.Request(f"http://{sys.argv[1]}:4200/api{path}", json.dumps(body).encode(), headers)
    request.add_header("Content-Type", "application/json")
    return json.loads(web.urlopen(request).read())
key = base64.b64encode(os.environ["PREFECT_API_AUTH_STRING"].encode()).decode()
try:
    refused = ask("/flow_runs/filter", {})
except urllib.error.HTTPError as error:
    refused = error.code
states = lambda path: {each["name"]: each["state_name"] for each in ask(path, {}, Authorization=f"Basic {key}")}
print(json.dumps([refused, states("/flow_runs/filter"), states("/task_runs/filter")]))
"""


def write_run(folder: Path, number: int) -> None:
    """A run on a volume of its own: cut, trained on, evaluated and assembled."""
    folder.mkdir()
    draw = np.random.default_rng(number)
    np.save(folder / "volume.npy", draw.normal(size=(16, 16, 16)).astype(np.float32))
    np.save(folder / "target.npy", draw.integers(0, 2, size=(16, 16, 16)))
    convolution = {"filters": 2, "kernel_size": 3, "padding": "same", "activation": "softmax"}
    section: dict[str, Any] = {
        "outfile": "out.txt",
        "layers": [
            {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 8, 8, 8, 1]}},
            {"class_name": "Conv3D", "config": convolution},
        ],
        "data": {
            "type": "numpy",
            "input_path": "volume.npy",
            "target_path": "target.npy",
            "test_input_path": "volume.npy",
            "test_target_path": "target.npy",
            "target_is_mask": True,
            "preload": True,
            "slicers": [{"sizes": [8, 8, 8]}],
            "hdf5_outfile": "prediction.h5",
        },
        "optimizer": {"type": "SGD"},
        "loss": {"function": "Dice"},
        "checkpoints": {"save": "checkpoints"},
    }
    (folder / "run.json").write_text(json.dumps({"neural_network": section}))


def test_runs_go_through_either_server_and_over_the_network(machines: Any) -> None:
    for number in (1, 2):
        write_run(machines.folder / f"run{number}", number)

    def submit(number: int) -> Any:
        file = f"/srv/rml/run{number}/run.json"
        url = f"PREFECT_API_URL=http://server-{number}:4200/api"
        return machines.run("host", "env", url, "rml", "submit", file, "--watch", "--scheduler", SCHEDULER, timeout=600)

    with ThreadPoolExecutor() as pool:
        for done in pool.map(submit, (1, 2)):
            assert done.returncode == 0, done.stdout + done.stderr + machines.log("worker-cpu")
    for number in (1, 2):
        folder = machines.folder / f"run{number}"
        assert (folder / "checkpoints" / "model_checkpoint_1.pt").is_file()
        with h5py.File(folder / "prediction.h5") as file:
            assert file["slice_set_1"].shape == (2, 16, 16, 16)
    # Prepared once for all machines, and what Prefect knows of it.
    assert len(list((machines.folder / "cache" / "rml" / "prepared").iterdir())) == 4
    assert len(list((machines.folder / "results").iterdir())) >= 4
    # The worker has used the cluster on another machine.
    assert f"tcp://{machines.addresses['worker-cpu']}:" in machines.log("dask-scheduler")

    for server in ("server-1", "server-2"):
        said = machines.run("host", "python", "-c", ASK, server)
        assert said.returncode == 0, said.stderr
        refused, runs, phases = json.loads(said.stdout)
        assert refused == 401
        assert list(runs.values()).count("Completed") == 2
        # Task runs are written by the services, from events that come by way of Redis.
        assert {phases[name] for name in PHASES} == {"Completed"}
    # Of the services it is not asked: an automation that is registered while triggers are looked at makes Prefect fail
    # that once ("has been garbage collected"), and look again five seconds later.
    for name in ("server-1", "server-2"):
        assert "Traceback" not in machines.log(name)
        assert "ERROR" not in machines.log(name)
