"""The processes of a service are known by what stands in their environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from flows.service import processes
from flows.service.state import State

SLEEP = "print('here', flush=True); import time; time.sleep(60)"


def test_those_that_carry_its_mark_are_found_and_ended(tmp_path: Path) -> None:
    state = State(tmp_path)
    environments = [{"RML_SERVICE": str(tmp_path)}, {"RML_SERVICE": str(tmp_path), "PREFECT__FLOW_RUN_ID": "r"}, {}]
    command = [sys.executable, "-S", "-c", SLEEP]
    begun = [
        subprocess.Popen(command, env={**os.environ, **each}, stdout=subprocess.PIPE, start_new_session=True)
        for each in environments
    ]
    try:
        for process in begun:
            assert process.stdout is not None
            process.stdout.readline()
        marked, run, other = (process.pid for process in begun)
        assert {process.pid for process in processes.of(state)} == {marked, run}
        assert {key: [each.pid for each in found] for key, found in processes.of_runs(state).items()} == {"r": [run]}
        assert processes.of(State(tmp_path / "another")) == []
        processes.end(processes.of(state), patience=10)
        assert processes.of(state) == []
        assert processes.is_alive(other)
    finally:
        for process in begun:
            process.kill()
            process.communicate()
    assert not processes.is_alive(marked)


def test_who_listens_on_a_port_is_named() -> None:
    process = psutil.Process()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        said = f"{process.name()} (process {process.pid}: {' '.join(process.cmdline())[:120]})"
        assert processes.on_port("127.0.0.1", port) == said
    assert processes.on_port("127.0.0.1", port) == "another process"


def test_a_file_without_a_number_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    assert processes.number_in(path) is None
    path.write_text("nothing")
    assert processes.number_in(path) is None
    path.write_text("12\n")
    assert processes.number_in(path) == 12


LISTEN = """
import socket, time
with socket.socket() as own:
    own.bind(("127.0.0.1", 0))
    own.listen()
    print(own.getsockname()[1], flush=True)
    time.sleep(60)
"""


def test_what_listens_is_the_services_own_or_another_ones(tmp_path: Path) -> None:
    environment = {**os.environ, "RML_SERVICE": str(tmp_path)}
    command = [sys.executable, "-S", "-c", LISTEN]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            assert processes.listens(State(tmp_path), port)
            assert not processes.listens(State(tmp_path / "another"), port)
            with socket.socket() as other:
                other.bind(("127.0.0.1", 0))
                other.listen()
                assert not processes.listens(State(tmp_path), other.getsockname()[1])
        finally:
            process.kill()
    assert not processes.listens(State(tmp_path), port)
