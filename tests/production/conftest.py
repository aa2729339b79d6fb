"""A real service for the tests of production: `rml up` in a folder of its own, one a session."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE = 300.0
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def environment_below(home: Path) -> dict[str, str]:
    """An environment in which nothing of the user's own is read or written."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "RML_", "XDG_"))}
    return {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_STATE_HOME": str(home / ".local" / "state"),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "PREFECT_HOME": str(home / ".prefect"),
        "RML_STATE": str(home / "state"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


@dataclass
class Service:
    """A service that is up. `environment`: in which `rml` and `prefect` find it. `url`: of its pages; `api`: of its
    interface; `home`: the folder in which everything lies."""

    environment: dict[str, str]
    url: str
    home: Path

    @property
    def api(self) -> str:
        return f"{self.url}/api"

    @property
    def state(self) -> Path:
        return Path(self.environment["RML_STATE"])

    def run(
        self, *command: str | Path, cwd: Path | None = None, given: str | None = None, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """A command (`rml`, `prefect`, ...) as a user types it, in `cwd` (the home folder), `given` on its standard
        input; its outcome with both outputs."""
        return subprocess.run(
            [str(part) for part in command],
            env=self.environment,
            cwd=cwd or self.home,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def call(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """What the server's interface answers; a body is posted as JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api}{path}", data=data, method=method)
        request.add_header("Content-Type", "application/json")
        until = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(request, timeout=150) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                # SQLite is locked; Prefect's own clients ask again as well.
                if error.code != 503 or time.monotonic() > until:
                    raise
                time.sleep(0.5)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Prefect's own client of this server."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: self.api}), get_client(sync_client=True) as client:
            yield client

    def submit(self, section: dict[str, Any], deployment: str = "train", **parameters: Any) -> str:
        """Submit what stands under `neural_network`, as the server takes it; gives the flow run's id."""
        return self.create(deployment, {"neural_network": section, **parameters})

    def create(self, deployment: str, parameters: dict[str, Any]) -> str:
        """A flow run of a deployment with these parameters; gives its id."""
        found = self.call(f"/deployments/name/rml/{deployment}")
        made: dict[str, Any] = self.call(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def flow_run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call(f"/flow_runs/{run}")
        return found

    def wait(self, run: str, *states: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """Wait until a flow run is in one of these states (types or names), or, without any, has ended; gives it."""
        until = time.monotonic() + timeout
        while True:
            found = self.flow_run(run)
            if found["state_type"] in (states or ENDED) or found["state_name"] in states:
                return found
            if time.monotonic() > until or (states and found["state_type"] in ENDED):
                text = json.dumps(found["state"], indent=2)
                pytest.fail(f"flow run {run} is not {' or '.join(states) or 'ended'}:\n{text}\n{self.log(run)}")
            time.sleep(0.2)

    def log(self, run: str, since: float = 0.0) -> str:
        """What a flow run has logged since then (seconds since 1970)."""
        after = {"after_": datetime.fromtimestamp(since, UTC).isoformat()}
        body = {"logs": {"flow_run_id": {"any_": [run]}, "timestamp": after}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(each["message"] for each in self.call("/logs/filter", body))

    def status(self) -> dict[str, Any]:
        """What `rml status --json` says."""
        found: dict[str, Any] = json.loads(self.run("rml", "status", "--json").stdout)
        return found

    def pid(self, program: str) -> int:
        """The process of `server`, `gpu` or `cpu`."""
        return int(self.status()["programs"][program]["pid"])

    def processes(self, run: str | None = None) -> list[psutil.Process]:
        """The living processes of the service, or of one of its flow runs."""
        return list(_processes(self.state, run))


def _processes(state: Path, run: str | None = None) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            environment = process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
        except (psutil.Error, OSError):
            continue
        ours = environment.get("RML_SERVICE") == str(state) and process.pid != os.getpid()
        if ours and (run is None or environment.get("PREFECT__FLOW_RUN_ID") == run):
            yield process


@contextmanager
def _put_up(home: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[Service]:
    home.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    service = Service({**environment_below(home), **(environment or {})}, f"http://127.0.0.1:{port}", home)
    try:
        put_up = service.run("rml", "up", "--port", str(port), *options, timeout=2 * PATIENCE)
        assert put_up.returncode == 0, put_up.stdout + put_up.stderr
        yield service
    finally:
        try:
            service.run("rml", "down")
        finally:
            for process in _processes(service.state):
                process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def put_up() -> Callable[..., Any]:
    """Puts a service of a test's own up: `with put_up(folder, "--cpu-runs", "8", environment={...}) as service:`."""
    return _put_up


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service that all tests share: whoever kills parts of it waits until they are back."""
    with _put_up(tmp_path_factory.mktemp("service"), "--gpu-runs", "4", "--cpu-runs", "4") as service:
        yield service


class Receiver(HTTPServer):
    """Takes what a webhook is sent. `told`: the bodies, each with its path and the kind of content."""

    told: list[tuple[str, str, dict[str, Any]]]
    secret = "T0K3N-of-the-chat"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/{self.secret}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """Who is told by the service `guarded`."""
    with Receiver(("127.0.0.1", 0), _Handler) as server:
        server.told = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def guarded(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of a machine with one pretended GPU, which tells a webhook of what happens."""
    folder = tmp_path_factory.mktemp("guarded")
    environment = {
        "RML_DEVICES": "pretended:1",
        "RML_LOCKS": str(folder / "locks"),
        "RML_METRICS_PORT": str(_two_free_ports()),
        "RML_LONG_SECONDS": "10",
        "RML_WEBHOOK": receiver.url,
    }
    with _put_up(folder / "home", "--gpu-runs", "3", "--cpu-runs", "1", environment=environment) as service:
        yield service


def _two_free_ports() -> int:
    """The first of two that lie together."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
