"""A service that is put up, disturbed and taken down."""

from __future__ import annotations

import copy
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.slow

PATIENCE = 240.0


def until(holds: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """What `holds` gives, once it gives something."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.3)
    return pytest.fail("it never came to that")


def profiles(service: Any) -> str:
    return (service.home / ".prefect" / "profiles.toml").read_text()


def test_all_is_well_once_it_is_up(service: Any) -> None:
    found = service.status()
    assert found["well"]
    assert found["url"] == service.url
    assert found["state"] == str(service.state)
    states = {name: program["state"] for name, program in found["programs"].items()}
    assert states == {"server": "running", "gpu": "running", "cpu": "running"}
    pools = {each["name"]: (each["status"], each["limit"]) for each in found["pools"]}
    assert pools == {"gpu": ("ready", 4), "cpu": ("ready", 4)}
    deployments = {each["name"]: each["pool"] for each in found["deployments"]}
    assert deployments.items() >= {"rml/train": "gpu", "rml/evaluate": "gpu", "rml/retrain": "gpu"}.items()


def test_what_runs_listens_on_this_machine_alone(service: Any) -> None:
    addresses = {
        connection.laddr.ip
        for process in service.processes()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses == {"127.0.0.1"}


def test_a_second_up_changes_nothing(service: Any) -> None:
    before = {name: program["pid"] for name, program in service.status()["programs"].items()}
    again = service.run("rml", "up")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"up: {service.url}\nworkers: gpu (4 at a time), cpu (4 at a time)\nstate: {service.state}\n"
    assert {name: program["pid"] for name, program in service.status()["programs"].items()} == before


def test_another_port_is_refused_while_it_is_up(service: Any) -> None:
    refused = service.run("rml", "up", "--port", "1")
    assert refused.returncode == 2
    assert refused.stderr == (
        "rml up: 1 problem\n\n"
        f"the service in {service.state} is up at {service.url}\n    take it down first: `rml down`\n"
    )


def test_prefect_finds_it_from_every_folder(service: Any, tmp_path: Path) -> None:
    found = service.run("prefect", "deployment", "inspect", "rml/train", "--output", "json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["entrypoint"] == "flows.rml.rml"


@pytest.mark.parametrize("program", ["server", "cpu"])
def test_what_is_killed_comes_back_by_itself(service: Any, program: str) -> None:
    before = service.pid(program)
    os.kill(before, signal.SIGKILL)
    until(lambda: (found := service.status())["well"] and found["programs"][program]["pid"] != before)


def test_a_supervisor_that_is_killed_is_followed_by_another(service: Any) -> None:
    os.kill(int((service.state / "supervisord.pid").read_text()), signal.SIGKILL)
    lost = service.run("rml", "status", "--json")
    assert (lost.returncode, json.loads(lost.stdout)["well"]) == (1, False)
    again = service.run("rml", "up")
    assert (again.returncode, again.stderr) == (0, "")
    assert service.status()["well"]
    servers = [process for process in service.processes() if "server" in process.cmdline()]
    assert len(servers) == 1
    # Up is a worker that has said so itself: the server knows the one of before by the same name.
    for name in ("gpu", "cpu"):
        (found,) = service.call(f"/work_pools/{name}/workers/filter", {})
        began = psutil.Process(service.pid(name)).create_time()
        assert datetime.fromisoformat(found["last_heartbeat_time"]).timestamp() > began


def test_a_server_that_does_not_come_back_takes_nobody_along(service: Any) -> None:
    """Its port is somebody else's meanwhile: the workers, and with them their runs, go on."""
    workers = {name: service.pid(name) for name in ("gpu", "cpu")}
    port = int(service.url.rpartition(":")[2])
    os.kill(service.pid("server"), signal.SIGKILL)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        until(lambda: _bound(other, port))
        other.listen()
        failed = service.run("rml", "up")
        assert (failed.returncode, failed.stdout) == (1, "")
        assert failed.stderr.startswith("the Prefect server does not start: its port was taken meanwhile; ")
        assert {name: service.pid(name) for name in workers} == workers
    again = service.run("rml", "up")
    assert (again.returncode, again.stderr) == (0, "")
    assert {name: service.pid(name) for name in workers} == workers


def _bound(to_be: socket.socket, port: int) -> bool:
    try:
        to_be.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def long_run(classification: dict[str, Any], folder: Path) -> dict[str, Any]:
    """So many epochs that it is in progress whenever it is looked at."""
    section: dict[str, Any] = classification["neural_network"]
    section["num_epochs"] = 100_000
    section["checkpoints"] = {"save": str(folder / "checkpoints"), "interval": 100_000}
    return section


def epochs(folder: Path) -> list[int]:
    try:
        return [int(line.split()[0]) for line in (folder / "out_test.txt").read_text().splitlines()]
    except FileNotFoundError:
        return []


def test_runs_in_progress_go_on_after_down_and_up(put_up: Any, classification: dict[str, Any], tmp_path: Path) -> None:
    with put_up(tmp_path / "own", "--cpu-runs", "1", "--gpu-runs", "0") as service:
        short = copy.deepcopy(classification["neural_network"])
        first = service.create("train", {"neural_network": long_run(classification, tmp_path), "base": str(tmp_path)})
        until(lambda: service.flow_run(first)["state_name"] == "Running")
        (tmp_path / "second").mkdir()
        waiting = service.create("train", {"neural_network": short, "base": str(tmp_path / "second")})
        until(lambda: len(epochs(tmp_path)) > 3)

        gone = service.run("rml", "down")
        assert (gone.returncode, gone.stderr) == (0, "")
        assert gone.stdout == f"1 run in progress: `rml up` goes on with it\ndown: {service.url}\n"
        assert service.processes() == []
        assert sorted(path.name for path in service.state.iterdir() if path.is_socket() or path.suffix == ".pid") == []
        assert not (service.home / ".prefect" / "profiles.toml").exists()
        saved = len(epochs(tmp_path))
        assert (tmp_path / "checkpoints" / "model_checkpoint_interrupted.pt").exists()
        nothing = service.run("rml", "status")
        assert nothing.returncode == 1
        assert nothing.stdout == f"nothing is up in {service.state}: `rml up` puts a service up\n"
        assert service.run("rml", "down").stdout == f"nothing is up in {service.state}\n"

        again = service.run("rml", "up")
        assert (again.returncode, again.stderr) == (0, "")
        until(lambda: len(epochs(tmp_path)) > saved + 3)
        found = epochs(tmp_path)
        assert found == list(range(1, len(found) + 1))
        assert service.flow_run(first)["run_count"] == 2

        # Everything dies at once, as when the machine does.
        for process in service.processes():
            process.send_signal(signal.SIGKILL)
        again = service.run("rml", "up")
        assert (again.returncode, again.stderr) == (0, "")
        # Without a checkpoint since, it begins anew.
        until(lambda: service.flow_run(first)["run_count"] == 3 and service.flow_run(first)["state_name"] == "Running")
        service.call(f"/flow_runs/{first}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        assert service.wait(first)["state_type"] == "CANCELLED"
        assert service.wait(waiting)["state_type"] == "COMPLETED"


def test_a_port_that_is_taken_is_refused(put_up: Any, service: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = service.run("rml", "up", "--state", tmp_path / "other", "--port", str(port))
        process = psutil.Process()
        who = f"{process.name()} (process {process.pid}: {' '.join(process.cmdline())[:120]})"
        assert refused.returncode == 2
        first, remedy = refused.stderr.removeprefix("rml up: 1 problem\n\n").splitlines()
        assert first == f"port {port} is taken by {who}"
        assert remedy.startswith("    end that, or take another port: `rml up --port ")
        assert not (tmp_path / "other" / "service.json").exists()


def test_a_damaged_database_is_told(service: Any, tmp_path: Path) -> None:
    database = tmp_path / "other" / "prefect" / "prefect.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"no database at all" * 1000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = service.run("rml", "up", "--state", tmp_path / "other", "--port", str(port))
    assert refused.returncode == 2
    assert refused.stderr == (
        "rml up: 1 problem\n\n"
        f"{database}: Prefect's database is damaged: file is not a database\n"
        f"    put it aside, and `rml up` makes a new one: mv {database} {database}.damaged\n"
        "    (schedules, and the pages of former runs, are in it; checkpoints, logs and predictions are not)\n"
    )
