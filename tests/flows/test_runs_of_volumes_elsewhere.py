"""Volumes on a cluster that is there, one of whose workers is killed; and predictions that go to a URL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flows.phases import as_it_is, execute
from rml_core.check import check
from rml_core.run import read

RANDOM = np.random.default_rng(0)
SHAPE = (40, 48, 56)


def section(**data: Any) -> dict[str, Any]:
    """A mean of three voxels each way, halfway overlapping blocks."""
    pool = {"pool_size": 3, "strides": 1, "padding": "same"}
    return {
        "layers": [{"class_name": "AveragePooling3D", "config": pool}],
        "data": {
            "input_type": "hdf5",
            "test_input_path": "volume.h5",
            "test_batch_size": 4,
            "preload": True,
            "slicers": [{"name": "bricks", "sizes": [8, 8, 8], "strides": [4, 4, 4], "padding": 1}],
            "hdf5_outfile": "prediction.h5",
            **data,
        },
    }


@pytest.fixture
def volume(tmp_path: Path) -> np.ndarray:
    made = RANDOM.random(SHAPE).astype(np.float32)
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file.create_dataset("volume", data=made, chunks=(8, 16, 16), compression="gzip")
    return made


def left(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler's address, and two workers, without a nanny that would start others in their place."""
    folder = tmp_path_factory.mktemp("dask")
    dask = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    file = folder / "scheduler.json"
    here = ["--host", "127.0.0.1", "--no-dashboard"]
    processes = [
        subprocess.Popen([*dask, "scheduler", "--port", "0", "--scheduler-file", str(file), *here], **quiet)  # type: ignore[call-overload]
    ]
    try:
        work = ["--scheduler-file", str(file), "--nthreads", "1", "--local-directory", str(folder), "--no-nanny", *here]
        processes += [subprocess.Popen([*dask, "worker", *work], **quiet) for _ in range(2)]  # type: ignore[call-overload]
        until = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        import distributed

        address: str = json.loads(file.read_text())["address"]
        with distributed.Client(address) as client:  # type: ignore[attr-defined]
            client.wait_for_workers(2, timeout=60)
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_workers_assemble_the_same_bits_and_one_that_is_killed_costs_nothing_but_its_blocks(
    workers: tuple[str, list[subprocess.Popen[bytes]]], volume: np.ndarray, tmp_path: Path
):
    address, (first, _) = workers

    def run(scheduler: str | None, do: Callable[..., Any] = as_it_is) -> bytes:
        execute(check(read({"neural_network": section()}, tmp_path)), do, scheduler=scheduler)
        with h5py.File(tmp_path / "prediction.h5") as file:
            return file["bricks"][...].tobytes()

    alone = run(None)
    assert run(address) == alone

    def killing(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Kills one as soon as there are blocks to be added."""
        if name == "evaluate epoch 1":
            threading.Timer(0.3, first.send_signal, [signal.SIGKILL]).start()
        return function(*arguments)

    assert run(address, killing) == alone
    first.wait(30)
    assert left(tmp_path) == {"volume.h5", "prediction.h5"}


def test_a_prediction_and_its_picture_go_behind_a_url(volume: np.ndarray, tmp_path: Path, in_memory: Any):
    from flows import report

    whole = section(hdf5_outfile="memory://store/runs/prediction.h5", slicers=[{"name": "bricks", "sizes": [8, 8, 8]}])
    whole["layers"] = [{"class_name": "Activation", "config": {"activation": "linear"}}]
    outcome = execute(check(read({"neural_network": whole}, tmp_path)), as_it_is)
    report.put_pictures(outcome)
    assert in_memory.ls("/store/runs", detail=False) == [
        "/store/runs/prediction.h5",
        "/store/runs/prediction_sections.png",
    ]
    in_memory.get_file("/store/runs/prediction.h5", str(tmp_path / "got.h5"))
    with h5py.File(tmp_path / "got.h5") as file:
        np.testing.assert_array_equal(file["bricks"][0], volume)
    assert [str(path) for path, _ in outcome.places.written()] == [
        "memory://store/runs/prediction.h5",
        "memory://store/runs/prediction_sections.png",
    ]
