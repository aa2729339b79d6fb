"""The thread that writes a run's page: what it sends, what it leaves out, and a server that is away."""

from __future__ import annotations

import logging
import threading
from typing import Any
from uuid import uuid4

import pytest

from flows.page.board import Board, Content


def text(said: str, key: str = "summary") -> Any:
    return lambda: Content("markdown", said, "what it is", key)


def test_one_artifact_a_place_with_the_newest_content(server: Any):
    board = Board(uuid4())
    for number in range(100):
        board.put("summary", text(f"number {number}"))
        board.put("epochs", text(f"row {number}", "epochs"))
    board.close()
    assert server.by_key() == {"summary": "number 99", "epochs": "row 99"}
    assert server.asked.count("create summary") == server.asked.count("create epochs") == 1
    # At once, and when it is closed: between them too little time has passed.
    assert len(server.asked) <= 4


def test_what_is_put_is_made_in_the_thread_and_only_when_it_is_due(server: Any):
    made: list[str] = []

    def make() -> Content:
        made.append(threading.current_thread().name)
        return Content("markdown", "text", "", "curves")

    board = Board(uuid4())
    for _ in range(50):
        board.put("curves", make, after=600)
    board.put("summary", text("first"))
    board.close()
    assert made == ["rml-page"]
    assert server.by_key() == {"curves": "text", "summary": "first"}


def test_what_is_dear_to_make_is_made_seldom(server: Any, monkeypatch: pytest.MonkeyPatch):
    """A hundredth of a second of work, of which a run may spend 0.003 of its time: once in three seconds."""
    seconds = iter(range(1000))
    monkeypatch.setattr("flows.page.board.time.thread_time", lambda: next(seconds) * 0.01)
    monkeypatch.setattr("flows.page.board.time.monotonic", lambda: 1000.0)
    board = Board(uuid4())
    board.put("curves", text("first", "curves"))
    board.close()
    assert board._places["curves"].due == pytest.approx(1000 + 0.01 / 0.003)


def test_a_server_that_is_away_fails_nothing_and_is_said_once(server: Any, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "rml")
    server.answers.clear()
    board = Board(uuid4())
    tried = threading.Event()

    def failing() -> Exception:
        tried.set()
        return ConnectionError("nobody is there: redis://user:word@host")

    server.failing = failing
    board.put("summary", text("first"))
    assert tried.wait(5)
    board.put("summary", text("second"))
    server.answers.set()
    board.close()
    assert server.by_key() == {"summary": "second"}
    said = "ConnectionError: nobody is there: redis://user:***@host"
    assert [record.getMessage() for record in caplog.records] == [
        f"warning: the page of this run in Prefect's UI is not up to date: {said}"
    ]


def test_a_server_that_never_comes_back_is_given_up(server: Any):
    server.answers.clear()
    board = Board(uuid4())
    board.put("summary", text("first"))
    board.close(patience=5)
    assert not board._thread.is_alive()
    assert server.shown == {}


def test_what_one_place_cannot_show_keeps_no_other_from_it(server: Any, caplog: pytest.LogCaptureFixture):
    def broken() -> Content:
        raise ValueError("no such figure")

    board = Board(uuid4())
    board.put("curves", broken)
    board.put("summary", text("first"))
    board.close()
    assert server.by_key() == {"summary": "first"}
    assert "ValueError: no such figure" in caplog.text


def test_another_attempt_takes_the_artifacts_over(server: Any):
    run = uuid4()
    for again, said in ((False, "first attempt"), (True, "second attempt")):
        board = Board(run, again)
        board.put("summary", text(said))
        board.close()
    assert server.by_key() == {"summary": "second attempt"}
    assert server.asked == ["create summary", "PATCH summary"]


def test_nothing_is_started_for_nothing(server: Any):
    board = Board(uuid4())
    board.close()
    assert not board._thread.is_alive()
