"""What `rml plan` says of slices: every set, what is assembled, and nothing that grows with their number."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.plan import MOST_EPOCH_PHASES, plan
from rml_core.check import Checked, check
from rml_core.run import read

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]

LAYERS = [
    {
        "class_name": "Conv2D",
        "config": {"filters": 4, "kernel_size": 3, "padding": "same", "activation": "log_softmax"},
    }
]
SETS = [
    {"name": "yz-slices", "sizes": [1, 13, 10], "padded_sizes": [1, 16, 12]},
    {"name": "xz-slices", "sizes": [8, 1, 10], "strides": [4, 2, 10], "transpose": True, "discard_remainders": True},
]


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Any]:
    """A run file that trains on slices of one volume and assembles the predictions of another."""
    data: dict[str, Any] = {"type": "numpy", "target_is_mask": True, "slicers": SETS, "batch_size": 16}
    for role, length in (("", 20), ("test_", 30)):
        np.save(tmp_path / f"{role}v.npy", np.zeros((2, length, 13, 10), "f4"))
        np.save(tmp_path / f"{role}m.npy", np.zeros((length, 13, 10), "u1"))
        data |= {f"{role}input_path": f"{role}v.npy", f"{role}target_path": f"{role}m.npy"}
    return {
        "neural_network": {
            "num_epochs": 2,
            "layers": LAYERS,
            "data": {**data, "hdf5_outfile": "out/prediction.h5"},
            "optimizer": {"type": "Adam"},
            "loss": {"function": "NLL"},
        }
    }


def planned(volumes: dict[str, Any], rml: Rml, run_file: RunFile) -> dict[str, Any]:
    status, output, errors = rml("plan", run_file(volumes), "--json")
    assert (status, errors) == (0, "")
    found: dict[str, Any] = json.loads(output)
    return found


def test_every_set_of_every_role(volumes: dict[str, Any], rml: Rml, run_file: RunFile):
    found = planned(volumes, rml, run_file)
    assert found["slice_sets"] == [
        {
            "role": role,
            "name": name,
            "samples": samples,
            "counts": counts,
            "sample_shape": shape,
            "batches": batches,
            "extent": extent,
            "prediction_shape": [4, *extent] if role == "test" else None,
            "overlaps": overlaps,
            "gaps": overlaps,
            "padded": not overlaps,
        }
        for role, name, samples, counts, shape, batches, extent, overlaps in (
            ("training", "yz-slices", 20, [20, 1, 1], [2, 16, 12], 2, [20, 13, 10], False),
            ("training", "xz-slices", 28, [4, 7, 1], [2, 10, 8], 2, [20, 13, 10], True),
            ("test", "yz-slices", 30, [30, 1, 1], [2, 16, 12], 1, [30, 13, 10], False),
            ("test", "xz-slices", 42, [6, 7, 1], [2, 10, 8], 1, [28, 13, 10], True),
        )
    ]
    assert found["samples"] == {"train": 48, "test": 72}
    # The last, smaller batch of each set.
    assert found["batches"] == {"train": 4, "test": 2}
    assert (found["sample_shape"], found["output_shape"]) == ([2, None, None], [4, None, None])
    assert [(phase["kind"], phase["name"]) for phase in found["phases"]] == [
        ("load", "load training"),
        ("slice", "slice training yz-slices"),
        ("slice", "slice training xz-slices"),
        ("load", "load test"),
        ("slice", "slice test yz-slices"),
        ("slice", "slice test xz-slices"),
        ("build", "build network"),
        ("train", "train epoch 1"),
        ("evaluate", "evaluate epoch 1"),
        ("assemble", "assemble prediction.h5, epoch 1"),
        ("train", "train epoch 2"),
        ("evaluate", "evaluate epoch 2"),
        ("assemble", "assemble prediction.h5, epoch 2"),
    ]


def test_in_words(volumes: dict[str, Any], rml: Rml, run_file: RunFile):
    section = volumes["neural_network"]
    for key in ("loss", "optimizer"):
        del section[key]
    for key in ("input_path", "target_path", "test_target_path", "target_is_mask"):
        del section["data"][key]
    slicers = section["data"]["slicers"]
    status, output, _ = rml("plan", run_file(volumes))
    assert (status, output) == (
        0,
        "app dnn\n"
        "72 test samples in 2 batches\n"
        "  yz-slices: 30 x 1 x 1 slices of 2 x 16 x 12, padded, prediction 4 x 30 x 13 x 10\n"
        "  xz-slices: 6 x 7 x 1 slices of 2 x 10 x 8, overlapping, prediction 4 x 28 x 13 x 10 with gaps\n"
        "sample 2 x ? x ?, output 4 x ? x ? (channels first)\n"
        "76 parameters\n"
        "\n"
        "  load test\n"
        "  slice test yz-slices\n"
        "  slice test xz-slices\n"
        "  build network\n"
        "  evaluate epoch 1\n"
        "  assemble prediction.h5\n",
    )
    section["data"]["test_batch_size"] = 1000
    section["data"]["slicers"] = [{"sizes": [1, 13, 10]}]
    assert rml("plan", run_file(volumes))[1].splitlines()[1] == "30 test samples in 1 batch"
    section["data"]["slicers"] = [{"sizes": [30, 1, 10], "strides": [30, 13, 10]}]
    assert rml("plan", run_file(volumes))[1].splitlines()[1] == "1 test sample in 1 batch"
    section["data"]["slicers"] = slicers
    section["data"]["hdf5_output"] = "argmax"
    shapes = [each["prediction_shape"] for each in planned(volumes, rml, run_file)["slice_sets"]]
    assert shapes == [[1, 30, 13, 10], [1, 28, 13, 10]]
    del section["data"]["hdf5_output"], section["data"]["hdf5_outfile"]
    found = planned(volumes, rml, run_file)
    assert [each["prediction_shape"] for each in found["slice_sets"]] == [None, None]
    assert found["phases"][-1] == {"name": "evaluate epoch 1", "kind": "evaluate"}
    assert (
        "xz-slices: 6 x 7 x 1 slices of 2 x 10 x 8, overlapping, reaching over 28 x 13 x 10 with gaps\n"
        in (rml("plan", run_file(volumes))[1])
    )


def test_what_is_planned_is_what_is_written(volumes: dict[str, Any], rml: Rml, run_file: RunFile, tmp_path: Path):
    section = volumes["neural_network"]
    for key in ("loss", "optimizer"):
        del section[key]
    for key in ("input_path", "target_path", "test_target_path", "target_is_mask"):
        del section["data"][key]
    section["data"]["test_output_path"] = "slices"
    sets = {each["name"]: each for each in planned(volumes, rml, run_file)["slice_sets"]}
    assert rml("run", run_file(volumes), "--untracked")[0] == 0
    with h5py.File(tmp_path / "out" / "prediction.h5") as file, h5py.File(tmp_path / "slices" / "output_1.h5") as each:
        assert file.keys() == each.keys() == sets.keys()
        for name, dataset in file.items():
            assert list(dataset.shape) == sets[name]["prediction_shape"]
            assert bool(np.isnan(dataset[...]).any()) == sets[name]["gaps"]
            assert len(each[name]) == sets[name]["samples"]
            shapes = {slice_.shape[1:] for slice_ in each[name].values()}
            assert shapes == {tuple(sets[name]["sample_shape"][1:])}


@pytest.fixture
def checked(volumes: dict[str, Any], tmp_path: Path) -> Callable[[int], Checked]:
    for key in ("input_path", "target_path", "test_input_path", "test_target_path"):
        volumes["neural_network"]["data"][key] = str(tmp_path / volumes["neural_network"]["data"][key])

    def of(epochs: int) -> Checked:
        volumes["neural_network"]["num_epochs"] = epochs
        return check(read(volumes))

    return of


@given(epochs=st.integers(1, 150), done=st.floats(0, 1), within=st.booleans())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_evaluated_is_assembled(checked: Callable[[int], Checked], epochs: int, done: float, within: bool):
    whole = plan(checked(epochs), round(done * epochs), int(within))
    for group in whole.groups:
        for epoch in group.epochs:
            assert epoch.evaluate is not None
            assert epoch.assemble is not None
            assert epoch.assemble.name == f"assemble prediction.h5, epoch {epoch.number}"
            assert epoch.phases[-1] == epoch.assemble
    assert len(whole.phases) <= 7 + 3 * MOST_EPOCH_PHASES


@pytest.mark.parametrize("kind", ["numpy", "zarr"])
def test_a_thousand_million_slices_cost_nothing(tmp_path: Path, run_file: RunFile, kind: str):
    """Headers alone are read, and neither torch nor Prefect is there."""
    shape = (1000, 10**6, 1000)
    if kind == "numpy":
        with (tmp_path / "v.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + 10**12)
    else:
        zarr.create_array(str(tmp_path / "v.zarr"), shape=shape, dtype="u1", chunks=(100, 100, 1000))
    layers = [{"class_name": "Conv1D", "config": {"filters": 2, "kernel_size": 3, "padding": "same"}}]
    slicers = [{"name": "lines", "sizes": [1, 1, 1000]}]
    data = {
        "input_type": kind,
        "test_input_path": "v.npy" if kind == "numpy" else "v.zarr",
        "slicers": slicers,
        "hdf5_outfile": "p.h5",
    }
    file = run_file({"neural_network": {"layers": layers, "data": data}})
    program = (
        "import resource, sys\n"
        "from flows import cli\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n"
        f"sys.argv = ['rml', 'plan', {str(file)!r}, '--json']\n"
        "try:\n    cli.main()\n"
        "finally:\n    print({'torch', 'prefect', 'distributed'} & set(sys.modules), file=sys.stderr)\n"
        # What getrusage has is of the process that started it, too.
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    print(next(int(line.split()[1]) // 1024 for line in lines if 'VmHWM' in line), file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    assert found["samples"] == {"train": 0, "test": 10**9}
    assert found["batches"] == {"train": 0, "test": 10**9 // 64}
    assert found["slice_sets"][0]["counts"] == [1000, 10**6, 1]
    assert found["slice_sets"][0]["prediction_shape"] == [2, *shape]
    modules, mebibytes = ran.stderr.split("\n")[-3:-1]
    assert modules == "set()"
    assert int(mebibytes) < 400
