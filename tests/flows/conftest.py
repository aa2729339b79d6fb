"""Runs in this process, and a real Prefect server for the tests of the flow: one a session."""

from __future__ import annotations

import copy
import os
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
