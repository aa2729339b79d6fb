"""The supervisor's configuration, as supervisord itself reads it."""

from __future__ import annotations

import configparser
import shlex
import socket
import sys
from pathlib import Path

import pytest

from flows.service import supervisor as supervisor_module
from flows.service.state import Options, State
from flows.service.supervisor import Supervisor, configuration, log_end


def read(state: State, options: Options) -> configparser.ConfigParser:
    # As supervisord does it: `%(name)s` is filled in, `%%` is one.
    parser = configparser.ConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(configuration(state, options))
    return parser


def test_the_server_and_a_worker_of_each_pool_are_kept_alive() -> None:
    found = read(State(Path("/state")), Options(port=4311))
    programs = {name: found[name] for name in found if name.startswith("program:")}
    assert list(programs) == ["program:server", "program:gpu", "program:cpu"]
    for program in programs.values():
        assert program["autorestart"] == "true"
        assert program["autostart"] == "false"
        assert program["stopsignal"] == "TERM"
        assert int(program["stdout_logfile_backups"]) > 0
    commands = [shlex.split(program["command"])[1:] for program in programs.values()]
    serve = ["-m", "flows.service.server", "server", "start", "--host", "127.0.0.1", "--port", "4311"]
    assert commands == [serve, ["-m", "flows.service.worker", "gpu"], ["-m", "flows.service.worker", "cpu"]]
    assert {shlex.split(program["command"])[0] for program in programs.values()} == {sys.executable}


def test_workers_end_before_the_server() -> None:
    found = read(State(Path("/state")), Options())
    # supervisord starts the lower priorities first, and stops them last.
    assert int(found["program:server"]["priority"]) < int(found["program:gpu"]["priority"])


def test_any_name_of_a_folder_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "100% mine"
    found = read(State(folder), Options())
    assert found["unix_http_server"]["file"] == str(State(folder).socket)
    assert found["supervisord"]["directory"] == str(folder)
    assert found["program:server"]["stdout_logfile"] == str(folder / "logs" / "server.log")


def test_where_no_supervisor_is_nothing_runs(tmp_path: Path) -> None:
    supervisor = Supervisor(State(tmp_path))
    assert not supervisor.is_up()
    assert supervisor.programs() == {}
    supervisor.end()


def test_the_end_of_a_log_is_what_it_says_last(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert log_end(log) == ""
    log.write_text("one\n\ntwo\nthree\n\n")
    assert log_end(log, 2) == "two\nthree"


def test_of_a_log_that_outlives_its_program_the_end_counts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("database is malformed\n")
    assert log_end(log, after=log.stat().st_size) == ""
    with log.open("a") as file:
        file.write("port is taken\n")
    assert log_end(log, after=len("database is malformed\n")) == "port is taken"
    log.write_text("anew\n")
    assert log_end(log, after=100) == "anew"


def test_a_supervisor_that_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "ANSWER", 0.1)
    state = State(tmp_path)
    with socket.socket(socket.AF_UNIX) as still:
        still.bind(str(state.socket))
        still.listen()
        assert not Supervisor(state).is_up()
        assert Supervisor(state).programs() == {}


def test_what_is_being_stopped_is_started_when_it_has_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = ["STOPPING", "STOPPING", "STOPPED"]
    called: list[str] = []

    def call(self: Supervisor, method: str, *arguments: object) -> list[dict[str, str]]:
        called.append(method)
        return [{"name": "cpu", "statename": states.pop(0) if len(states) > 1 else states[0]}]

    monkeypatch.setattr(Supervisor, "_call", call)
    Supervisor(State(tmp_path)).start("cpu")
    assert states == ["STOPPED"]
    assert called[-1] == "startProcess"
