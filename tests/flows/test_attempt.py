"""Attempts at a run: from what they go on, what they wait for, and when one is one too many."""

from __future__ import annotations

import errno
import importlib
import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from flows import attempt as attempts
from flows.attempt import RESTARTED, Attempt, begin, is_cancelled, most_restarts, refuse_one_too_many, restarts
from flows.phases import Outcome, execute
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.config.problem import Problem, Refused, RunFailed
from rml_core.engine.claim import claimed
from rml_core.run import read

OURS, THEIRS = "a" * 32, "b" * 32


@pytest.fixture
def attempt(classification: dict[str, Any], tmp_path: Path) -> Callable[..., Outcome]:
    """Makes an attempt in the folder `name`, with a signal after the phase that is named."""

    def make(name: str, run_id: str, number: int, after: str = "", **changes: Any) -> Outcome:
        def do(phase: str, function: Callable[..., Any], *arguments: Any) -> Any:
            result = function(*arguments)
            if phase == after:
                signal.raise_signal(signal.SIGINT)
            return result

        (tmp_path / name).mkdir(exist_ok=True)
        section = {**classification["neural_network"], **changes}
        return execute(check(read({"neural_network": section}, tmp_path / name)), do, attempt=Attempt(run_id, number))

    return make


def interrupted(attempt: Callable[..., Outcome], *arguments: Any, **changes: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        attempt(*arguments, **changes)


def ids(folder: Path) -> dict[str, str]:
    paths = sorted((folder / "checkpoints").glob("model_checkpoint_[0-9].pt"))
    return {path.stem[-1]: native.read(path, "")["run_id"] for path in paths}


def test_an_attempt_goes_on_from_its_own_newest_checkpoint(
    attempt: Callable[..., Outcome],
    assert_same: Callable[[Path, Path], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    attempt("whole", THEIRS, 1)
    interrupted(attempt, "ours", OURS, 1, "train epoch 1")
    caplog.set_level(logging.INFO)
    interrupted(attempt, "ours", OURS, 2, "evaluate epoch 2")
    attempt("ours", OURS, 3)
    folder = tmp_path / "ours"
    assert [line for line in caplog.messages if line.startswith("resuming")] == [
        f"resuming {folder}/checkpoints/model_checkpoint_interrupted.pt (after epoch {epoch})" for epoch in (1, 2)
    ]
    assert ids(folder) == {"1": OURS, "2": OURS, "3": OURS}
    assert_same(tmp_path / "whole", folder)


def test_a_first_attempt_begins_anew(attempt: Callable[..., Outcome], tmp_path: Path):
    interrupted(attempt, "place", OURS, 1, "train epoch 2")
    attempt("place", THEIRS, 1)
    assert ids(tmp_path / "place") == {"1": THEIRS, "2": THEIRS, "3": THEIRS}


def test_an_attempt_without_a_checkpoint_of_its_own_starts_as_at_first(
    attempt: Callable[..., Outcome], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    attempt("place", THEIRS, 1)
    caplog.set_level(logging.INFO)
    attempt("place", OURS, 2)
    saved = tmp_path / "place" / "checkpoints"
    assert f"passed over: other runs' checkpoints in {saved}; this run has left none" in caplog.messages
    assert f"this run has left no checkpoint in {saved}: it starts as it did at first" in caplog.messages
    assert ids(tmp_path / "place") == {"1": OURS, "2": OURS, "3": OURS}


@pytest.mark.parametrize("shared", ["checkpoints", "logs"])
def test_a_place_that_another_run_has_used_since_is_not_mixed(
    attempt: Callable[..., Outcome],
    assert_same: Callable[[Path, Path], None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    shared: str,
):
    attempt("whole", THEIRS, 1)
    interrupted(attempt, "place", OURS, 1, "evaluate epoch 2")
    elsewhere: dict[str, Any] = {"checkpoints": {"save": "others"}} if shared == "logs" else {"outfile": "others.txt"}
    attempt("place", THEIRS, 1, **elsewhere, num_epochs=1)
    caplog.clear()
    attempt("place", OURS, 2)
    # The other run's checkpoint has taken the place of the interrupted one.
    name = "2" if shared == "checkpoints" else "interrupted"
    saved = tmp_path / "place" / "checkpoints" / f"model_checkpoint_{name}.pt"
    assert (
        f"another run has written to the same place since {saved} was saved: this run starts as it did at first"
        in caplog.messages
    )
    assert_same(tmp_path / "whole", tmp_path / "place")


def test_logs_that_are_another_runs_are_known(attempt: Callable[..., Outcome], tmp_path: Path):
    from rml_core.engine.log import LogFiles, are_of

    outcome = attempt("place", OURS, 1)
    logs = LogFiles.beside(tmp_path / "place" / "out.txt")
    assert are_of(logs, outcome.history, 3)
    rows = logs.metrics.read_text().splitlines(keepends=True)
    more = [json.dumps({**json.loads(row), "memory_mb": 1e6, "time_s": 1e6}) + "\n" for row in rows]
    logs.metrics.write_text("".join(more))
    assert are_of(logs, outcome.history, 3)
    logs.metrics.write_text(rows[0])
    assert not are_of(logs, outcome.history, 3)
    logs.metrics.write_text(rows[0] + json.dumps({**json.loads(rows[1]), "test_loss": 0.5}) + "\n")
    assert not are_of(logs, outcome.history, 3)
    logs.metrics.unlink()
    assert not are_of(logs, outcome.history, 3)


def test_an_attempt_waits_until_the_one_before_lets_go(tmp_path: Path):
    place, waited = ("a", tmp_path), []
    other = claimed([place])
    other.__enter__()

    def wait(held: Refused) -> None:
        waited.append(str(held))
        if len(waited) == 3:
            other.__exit__(None, None, None)

    with claimed([place], wait=wait):
        assert len(waited) == 3
        assert waited[0].startswith(f"a: another run is writing to {tmp_path}")
        with pytest.raises(Refused), claimed([place]):
            pytest.fail("held twice")


def test_who_waits_says_so_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    asked: list[str] = []
    monkeypatch.setattr("flows.attempt._end_if_ended", asked.append)
    monkeypatch.setattr("flows.attempt.LOOK_S", 0.0)
    caplog.set_level(logging.INFO)
    second = Attempt(OURS, 2)
    for _ in range(3):
        second.wait(Refused([Problem("a", "another run is writing to x")]))
    assert caplog.messages == ["attempt 2 waits until an earlier one lets go: another run is writing to x"]
    assert asked == [OURS]


@pytest.mark.parametrize(
    ("flow", "given"),
    [("rml", {"neural_network": {}}), ("evaluate", {}), ("retrain", {}), ("clean", {"older_than": "long"})],
)
def test_each_flow_counts_its_attempt_before_it_looks_at_anything(
    monkeypatch: pytest.MonkeyPatch, flow: str, given: dict[str, Any]
):
    def one_too_many() -> Attempt:
        raise RunFailed("one attempt too many")

    module = importlib.import_module(f"flows.{flow}")
    monkeypatch.setattr(module, "page", lambda *arguments: nullcontext(), raising=False)
    monkeypatch.setattr(module, "log_to_server", lambda: None)
    monkeypatch.setattr("flows.attempt.begin", one_too_many)
    with pytest.raises(RunFailed) as failed:
        getattr(module, flow).fn(**given)
    assert str(failed.value) == "one attempt too many"


@pytest.fixture
def flow_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second attempt at a flow run."""
    monkeypatch.setattr("prefect.runtime.flow_run.id", OURS, raising=False)
    monkeypatch.setattr("prefect.runtime.flow_run.run_count", 2, raising=False)
    monkeypatch.setattr("flows.attempt._states", lambda run_id: [])
    monkeypatch.setattr("flows.attempt._end_phases", lambda run_id: None)
    monkeypatch.setattr("flows.attempt._alone", {})
    monkeypatch.setattr("flows.attempt.LOOK_S", 0.0)


def binding(monkeypatch: pytest.MonkeyPatch, *errors: int) -> None:
    """The sockets made from now on cannot be given their names, for these reasons one after the other."""
    left = list(errors)

    class Socket(socket.socket):
        def bind(self, address: Any) -> None:
            if left:
                number = left.pop(0)
                raise OSError(number, os.strerror(number))

    monkeypatch.setattr("flows.attempt.socket.socket", Socket)


@pytest.mark.usefixtures("flow_run")
def test_the_attempt_before_is_waited_for_until_it_is_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    ended: list[str] = []
    monkeypatch.setattr("flows.attempt._end_if_ended", ended.append)
    binding(monkeypatch, errno.EADDRINUSE, errno.EADDRINUSE)
    caplog.set_level(logging.INFO)
    assert begin() == Attempt(OURS, 2)
    assert caplog.messages == [
        "attempt 2 at this run",
        "attempt 2 waits until an earlier one lets go: its process is still there",
    ]
    assert ended == [OURS, OURS]
    for kept in attempts._alone.values():
        kept.close()


@pytest.mark.usefixtures("flow_run")
def test_a_machine_that_cannot_tell_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    binding(monkeypatch, errno.EPERM)
    caplog.set_level(logging.WARNING)
    assert begin() == Attempt(OURS, 2)
    assert caplog.messages == ["whether the attempt before is still there is not known: Operation not permitted"]
    for kept in attempts._alone.values():
        kept.close()


def state(kind: str, message: str | None = None) -> Any:
    from prefect.client.schemas.objects import State, StateType

    return State(type=StateType(kind), message=message)


def test_restarts_count_since_somebody_started_the_run():
    begun = [state("SCHEDULED"), state("PENDING"), state("RUNNING"), state("CRASHED")]
    again = [state("SCHEDULED", RESTARTED), state("RUNNING"), state("CRASHED")]
    twice = [state("SCHEDULED", RESTARTED), state("CRASHED")]
    by_hand = [state("SCHEDULED", "Retried via CLI"), state("RUNNING"), state("CRASHED")]
    assert restarts([]) == restarts(begun) == 0
    assert restarts([*begun, *again]) == 1
    assert restarts([*begun, *again, *again]) == 2
    assert restarts([*begun, state("SCHEDULED", RESTARTED), *again]) == 1
    assert restarts([*begun, *twice, *twice, *again]) == 1
    assert restarts([*begun, *again, *by_hand]) == 0
    assert restarts([*begun, *again, *by_hand, *again]) == 1


def test_a_cancelled_run_that_crashed_is_not_to_go_on():
    begun = [state("SCHEDULED"), state("RUNNING"), state("CANCELLING"), state("CRASHED")]
    again = [state("SCHEDULED", RESTARTED), state("RUNNING")]
    assert is_cancelled([*begun, *again])
    assert not is_cancelled([*begun, state("SCHEDULED", "Retried via CLI"), state("RUNNING")])
    assert not is_cancelled([state("SCHEDULED"), state("RUNNING"), state("CRASHED"), *again])


@pytest.mark.parametrize(
    ("most", "began"),
    [
        (0, "it was not started again by itself"),
        (1, "it was started again by itself once"),
        (2, "it was started again by itself 2 times"),
    ],
)
def test_one_attempt_too_many_says_what_to_do(most: int, began: str):
    refuse_one_too_many(most, most)
    with pytest.raises(RunFailed) as failed:
        refuse_one_too_many(most + 1, most)
    assert str(failed.value) == (
        f"the process of this run is gone, and {began} (RML_RETRIES is {most}): look in its log and in the worker's "
        "for what ends it (memory, a device, the machine); prefect flow-run retry goes on from its newest checkpoint"
    )


def test_how_often_is_set_by_a_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RML_RETRIES", raising=False)
    assert most_restarts() == 2
    monkeypatch.setenv("RML_RETRIES", "0")
    assert most_restarts() == 0
    monkeypatch.setenv("RML_RETRIES", "many")
    with pytest.raises(Refused) as refused:
        most_restarts()
    assert str(refused.value) == 'RML_RETRIES: "many" does not fit\n    allowed: a number of restarts, 0 or more'
