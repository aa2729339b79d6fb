"""What `rml submit` and those beside it say while a server keeps them waiting, and how a run's waiting is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import watching


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes every request and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        url = f"http://127.0.0.1:{there.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            yield url


def test_who_waits_for_a_server_is_told_so(
    silent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name, value in (("SLOW_S", 0.01), ("ANSWER_S", 0.1), ("AGAIN", 0)):
        monkeypatch.setattr(watching, name, value)
    with pytest.raises(SystemExit) as ended:
        watching.submit("rml/train", {})
    assert ended.value.code == 1
    assert capsys.readouterr() == (
        "",
        f"the Prefect server at {silent} does not answer; waiting, 0.1 s at most\n"
        f"the Prefect server at {silent} has not answered for 0.1 s; rml status looks at it\n",
    )


def test_that_a_run_waits_is_said_once():
    said: list[str] = []
    watch = watching.Watch(uuid4(), said.append, said.append)
    for kind, name in (("SCHEDULED", "Scheduled"), ("SCHEDULED", "Late"), ("PENDING", "Pending"), ("RUNNING", "")):
        watch._say_state(State(type=StateType[kind], name=name or None))
    assert said == ["waits for a worker (rml status says what runs)", "running"]
