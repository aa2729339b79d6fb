"""Clusters of processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Processes:
    """`address`: the scheduler's. `folder`: where they work and log."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]
    folder: Path


def _dask(folder: Path, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "false"}
    command = [sys.executable, "-m", "dask", *arguments]
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)


@contextmanager
def started(folder: Path, workers: int, threads: int) -> Iterator[Processes]:
    file = folder / "scheduler.json"
    local = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    processes = [_dask(folder, "scheduler", "scheduler", *local, "--scheduler-file", str(file))]
    try:
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text().endswith("}"):
            assert time.monotonic() < deadline, (folder / "scheduler.log").read_text()
            time.sleep(0.02)
        address = json.loads(file.read_text())["address"]
        options = ("--nthreads", str(threads), "--no-nanny", "--no-dashboard", "--local-directory", str(folder))
        for number in range(workers):
            processes.append(_dask(folder, f"worker-{number}", "worker", address, *options))
        yield Processes(address, processes[0], processes[1:], folder)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A scheduler, and two workers of two threads; not to be killed."""
    with started(tmp_path_factory.mktemp("dask"), 2, 2) as processes:
        yield processes


@pytest.fixture
def own_workers(tmp_path: Path) -> Iterator[Processes]:
    """Two workers of one thread, and their scheduler: the test may kill them."""
    folder = tmp_path / "dask"
    folder.mkdir()
    with started(folder, 2, 1) as processes:
        yield processes


@pytest.fixture
def no_workers(tmp_path: Path) -> Iterator[Processes]:
    """A scheduler without any worker."""
    folder = tmp_path / "dask"
    folder.mkdir()
    with started(folder, 0, 1) as processes:
        yield processes
