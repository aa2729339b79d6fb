"""What a service that is up refuses to be told anew, and how a command says that the server fails it."""

from __future__ import annotations

import urllib.error
from email.message import Message
from pathlib import Path

import pytest

from flows.service import api
from flows.service.state import State, named
from flows.service.up import _refuse_other_variables
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
