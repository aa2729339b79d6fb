"""What a service that is up refuses to be told anew, and how a command says that the server fails it."""

from __future__ import annotations

import contextlib
import sqlite3
import urllib.error
from email.message import Message
from pathlib import Path

import pytest

from flows.service import api
from flows.service.state import Options, State, named
from flows.service.up import _check_database, _check_port, _refuse_other_variables, up
from rml_core.config.problem import Refused, RunFailed

HAS = {"RML_ROOTS": "/data", "PREFECT_SERVER_API_AUTH_STRING": "me:old"}


def test_whom_it_trusts_is_not_changed_while_it_is_up():
    given = {"RML_ROOTS": "/", "RML_SCHEDULERS": "tcp://a:1", "PREFECT_SERVER_API_AUTH_STRING": "me:new"}
    with pytest.raises(Refused) as refused:
        _refuse_other_variables(State(Path("/srv/state")), HAS, given)
    assert str(refused.value) == "\n".join(
        f"{name}: the service in /srv/state is up with another value, or none\n"
        "    take it down first: `rml down`; or unset the variable"
        for name in given
    )


@pytest.mark.parametrize("given", [{}, {"RML_ROOTS": "/data"}, {"RML_THREADS": "3", "RML_SCHEDULERS": ""}])
def test_what_is_the_same_or_not_said_is_no_change(given: dict[str, str]):
    _refuse_other_variables(State(Path("/srv/state")), HAS, given)


def test_of_a_service_whose_variables_cannot_be_read_nothing_is_said():
    _refuse_other_variables(State(Path("/srv/state")), {}, {"RML_ROOTS": "/"})


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            urllib.error.HTTPError("http://s/api/x", 500, "Internal Server Error", Message(), None),
            "the Prefect server refuses http://s/api/x: HTTP Error 500: Internal Server Error; the reason stands in "
            "its log",
        ),
        (
            urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")),
            "the Prefect server does not answer: [Errno 111] Connection refused",
        ),
        (TimeoutError("timed out"), "the Prefect server does not answer: timed out"),
    ],
)
def test_a_server_that_fails_is_said_in_a_line(error: Exception, message: str):
    with pytest.raises(RunFailed) as failed, api.reached():
        raise error
    assert str(failed.value) == message


def test_a_state_folder_has_one_name(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert named(tmp_path / "link") == named(tmp_path / "real")


@pytest.mark.parametrize(("given", "which"), [("", "a password"), ("me:old", "another password")])
def test_a_server_behind_a_password_says_what_to_set(given: str, which: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", given)
    with pytest.raises(Refused) as refused, api.reached():
        raise urllib.error.HTTPError("http://s/api/x", 401, "Unauthorized", Message(), None)
    assert str(refused.value) == (f"the Prefect server wants {which}\n    set PREFECT_API_AUTH_STRING=user:password")


def test_variables_that_do_not_fit_are_told_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = {"RML_GPU_RUNS": "abc", "RML_RETRIES": "many", "RML_LOST_SECONDS": "soon", "RML_LONG_SECONDS": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Refused) as refused:
        up(State(tmp_path / "state"), host=None, port=None, gpu_runs=None, cpu_runs=None, webhook="x")
    assert str(refused.value) == (
        "--webhook: is no address\n    allowed: https://..., or none to tell nobody any more\n"
        'RML_GPU_RUNS: "abc" does not fit\n    allowed: a number of runs, 1 or more\n'
        'RML_RETRIES: "many" does not fit\n    allowed: a number of restarts, 0 or more\n'
        'RML_LOST_SECONDS: "soon" does not fit\n    allowed: seconds, 10 or more\n'
        'RML_LONG_SECONDS: "1" does not fit\n    allowed: seconds, 10 or more'
    )
    assert not (tmp_path / "state").exists()


def test_a_database_that_somebody_has_locked_is_not_damaged(tmp_path: Path):
    state = State(tmp_path)
    state.make()
    with contextlib.closing(sqlite3.connect(state.database)) as database:
        database.execute("create table a (b)")
        database.execute("pragma locking_mode=exclusive")
        database.execute("begin exclusive")
        with pytest.raises(Refused) as refused:
            _check_database(state)
    assert str(refused.value) == (
        f"{state.database}: Prefect's database cannot be read: database is locked\n"
        "    see who else has it open, and who may read it; nothing in it is lost"
    )


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b"])
def test_a_host_that_is_no_address_is_said(host: str):
    with pytest.raises(Refused) as refused:
        _check_port(Options(host=host))
    assert str(refused.value) == (
        f'--host: "{host}" is no address\n'
        "    allowed: 127.0.0.1 (this machine alone), 0.0.0.0 (all), or one of its addresses"
    )
