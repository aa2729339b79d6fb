"""Runs in this process, and a real Prefect server for the tests of the flow: one a session."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Any]:
    """Executes a section in the folder `name` of the test; gives the outcome."""
    from flows.phases import as_it_is, execute
    from rml_core.check import check
    from rml_core.run import read

    def executed(section: dict[str, Any], name: str = "run") -> Any:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return execute(check(read({"neural_network": copy.deepcopy(section)}, folder)), as_it_is)

    return executed


@pytest.fixture
def section(classification: dict[str, Any]) -> dict[str, Any]:
    """Classification without anything random, whose network is small enough to be written by hand."""
    section: dict[str, Any] = classification["neural_network"]
    section["layers"] = [layer for layer in section["layers"] if layer["class_name"] != "Dropout"]
    section["data"]["transforms"] = [{"normalize": {"mean": 0.3, "std": 0.5}}]
    section["data"]["shuffle"] = False
    return section


@pytest.fixture
def learning(classification: dict[str, Any], pictures: Path, tmp_path: Path) -> dict[str, Any]:
    """Two epochs on a copy of the pictures, which a test may change."""
    section: dict[str, Any] = classification["neural_network"]
    shutil.copytree(pictures, tmp_path / "data", copy_function=shutil.copy2)
    section["data"].update(input_path="data/train", test_input_path="data/test")
    section["num_epochs"] = 2
    return section


@pytest.fixture
def made(learning: dict[str, Any], tmp_path: Path) -> Callable[..., Any]:
    """Makes a round of retraining with `learning`, as the run of this name; `do` calls the phases."""
    from flows.retraining import Retraining, planned, retrained
    from flows.training import as_it_is
    from rml_core.config.section import parse

    def call(run_id: str, do: Any = as_it_is, promoted: Any = lambda row: None, **options: Any) -> Any:
        plan = planned(parse(Retraining, options, ""), {"neural_network": copy.deepcopy(learning)}, tmp_path, None)
        return retrained(plan, do, run_id, promoted=promoted)

    return call


@pytest.fixture
def begin(classification: dict[str, Any], tmp_path: Path) -> Callable[..., Any]:
    """Executes the run file `classification` in the folder `name`, with a signal before or after the phase that is
    named; gives the outcome."""
    from flows.phases import execute
    from rml_core.check import check
    from rml_core.run import read

    def run(name: str, before: str = "", after: str = "", resuming: str | None = None) -> Any:
        def do(phase: str, function: Callable[..., Any], *arguments: Any) -> Any:
            if phase == before:
                signal.raise_signal(signal.SIGINT)
            result = function(*arguments)
            if phase == after:
                signal.raise_signal(signal.SIGINT)
            return result

        (tmp_path / name).mkdir(exist_ok=True)
        return execute(check(read(classification, tmp_path / name)), do, resuming=resuming)

    return run


# What differs between two runs of the same file.
TIMES = {"samples_per_s", "test_samples_per_s", "train_seconds", "time_s", "memory_mb"}


@pytest.fixture
def assert_same() -> Callable[[Path, Path], None]:
    """Two runs of three epochs have left the same state and the same figures, bit by bit."""
    import torch

    from rml_core.checkpoints import native

    def flat(value: Any, place: str = "") -> dict[str, Any]:
        members = value.items() if isinstance(value, dict) else enumerate(value)
        nested = [(f"{place}.{key}", each) for key, each in members]
        found = {}
        for key, each in nested:
            found |= flat(each, key) if isinstance(each, dict | list | tuple) else {key: each}
        return found

    def rows(path: Path, time: int) -> list[list[str]]:
        lines = [line.split() for line in path.read_text().splitlines()]
        return [[*line[:time], *line[time + 1 :]] for line in lines]

    def metrics(path: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]

    def compare(one: Path, other: Path) -> None:
        kept = ("network", "optimizer", "scheduler", "scaler", "random")
        states = [native.read(native.epoch_path(place / "checkpoints", 3), "") for place in (one, other)]
        ours, theirs = (flat({key: state[key] for key in kept}) for state in states)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            same = torch.equal(value, theirs[key]) if isinstance(value, torch.Tensor) else value == theirs[key]
            assert same, key
        assert rows(one / "out_train.txt", 2) == rows(other / "out_train.txt", 2)
        assert rows(one / "out_test.txt", 1) == rows(other / "out_test.txt", 1)
        assert metrics(one / "out_metrics.jsonl") == metrics(other / "out_metrics.jsonl")

    return compare


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which commands find the server."""
    home: Path = tmp_path_factory.mktemp("prefect")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(f"{url}/health", server, home / "server.log")
            yield {**environment, "PREFECT_API_URL": url}
        finally:
            server.terminate()
            try:
                server.wait(timeout=15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(health: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the Prefect server did not start:\n{log.read_text()}")
