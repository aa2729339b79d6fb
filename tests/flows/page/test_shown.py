"""What a run's page shows while it works: progress, throttled, and what a run that ends leaves there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from flows.begun import Begun
from flows.page import shown
from flows.page.failure import SUBMIT, FlowRun
from flows.page.shown import Page, described, held_bytes
from flows.phases import as_it_is, execute
from flows.places import Places
from flows.plan import plan
from rml_core.check import check
from rml_core.config.problem import RunFailed
from rml_core.engine.progress import Blocks, Progress
from rml_core.run import read
from tasks.progress import listening


class Noted:
    """A board that notes what is put there, and shows it at once."""

    def __init__(self) -> None:
        self.told: list[tuple[UUID, float, str]] = []
        self.by_key: dict[str, Any] = {}
        self.descriptions: dict[str, str] = {}
        self.why: list[str] = []

    def put(self, place: Any, make: Callable[[], Any], *, after: float = 0.0) -> None:
        content = make()
        if content.kind == "progress":
            self.told.append((content.task_run, content.data, content.description.partition(",")[0]))
        else:
            assert place == content.key
            self.by_key[place], self.descriptions[place] = content.data, content.description

    def warn(self, why: str) -> None:
        self.why.append(why)


@pytest.fixture
def board() -> Noted:
    return Noted()


@pytest.fixture
def page(board: Noted) -> Page:
    return Page(board, FlowRun("the-id", SUBMIT))  # type: ignore[arg-type]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., UUID]:
    """In a task run of this name, at so many seconds."""
    runs: dict[str, UUID] = {}

    def be(name: str, seconds: float) -> UUID:
        run = SimpleNamespace(task_run=SimpleNamespace(id=runs.setdefault(name, uuid4()), name=name))
        monkeypatch.setattr(shown.TaskRunContext, "get", lambda: run)
        monkeypatch.setattr(shown.time, "monotonic", lambda: 1000 + seconds)
        return runs[name]

    return be


def test_how_far_an_epoch_is(page: Page, board: Noted, at: Callable[..., UUID]):
    for epoch in (1, 2):
        for quarter in range(1, 11):
            run = at(f"train epoch {epoch}", 100 * epoch + quarter / 4)
            page(Progress(epoch, quarter, 10, 0.5, 12.3))
    second = [each for each in board.told if each[0] == run]
    assert second == [(run, 90.0, "epoch 2: batch 9 of 10"), (run, 100.0, "epoch 2: batch 10 of 10")]
    assert len(board.told) == 4


def test_nothing_is_told_of_a_short_epoch(page: Page, board: Noted, at: Callable[..., UUID]):
    for batch in range(1, 8):
        at("train epoch 1", batch / 4)
        page(Progress(1, batch, 7, 0.5, 12.3))
    assert board.told == []


def test_how_far_a_group_of_epochs_is(
    page: Page, board: Noted, at: Callable[..., UUID], run_file: Callable[..., Path], classification: dict[str, Any]
):
    classification["neural_network"]["num_epochs"] = 400
    checked = check(read(run_file(classification)))
    page(Begun(checked, plan(checked), Places.of(checked)))
    for epoch in range(5, 9):
        run = at("train epochs 5-8", epoch)
        page(Progress(epoch, 1, 2, 0.5, 12.3))
        page(Blocks(f"evaluate epoch {epoch}", 4, 4, 0, 0.1))
    assert [each for each in board.told if each[2].startswith("epoch")] == [
        (run, 62.5, "epoch 7: batch 1 of 2"),
        (run, 87.5, "epoch 8: batch 1 of 2"),
    ]
    assert {percent for _, percent, _ in board.told} == {62.5, 87.5}


def test_a_short_phase_of_blocks_is_told_once(page: Page, board: Noted, at: Callable[..., UUID]):
    for done in range(1, 11):
        run = at("load test", done / 10)
        page(Blocks("load test", done, 10, 0, done / 10))
    assert board.told == [(run, 100, "load test: 10 of 10 blocks")]


def test_a_run_from_its_beginning_to_its_end(
    page: Page, board: Noted, run_file: Callable[..., Path], classification: dict[str, Any]
):
    file = run_file(classification)
    with listening(page):
        outcome = execute(check(read(file)), as_it_is)
        page.done(outcome)
    assert board.why == []
    assert board.by_key.keys() == {"summary", "run-file", "network", "epochs", "curves"}
    rows = json.loads(board.by_key["epochs"])
    assert [row["epoch"] for row in rows] == [3, 2, 1]
    columns = {"epoch", "train loss", "test loss", "accuracy", "learning rate", "samples/s", "memory (MB)"}
    assert all(set(row) == columns and all(value != "" for value in row.values()) for row in rows)
    assert board.by_key["curves"].startswith("![curves](data:image/png;base64,")
    assert json.loads(board.by_key["run-file"].strip("`").removeprefix("json")) == classification
    assert f"- `{file.parent}/out_report.png`" in board.by_key["summary"]
    state = page.completed
    assert state.is_completed()
    assert state.message == board.descriptions["epochs"]
    assert state.message.startswith("epoch 3 of 3: train loss ")


def test_a_run_that_fails_says_what_to_do(page: Page, board: Noted):
    page.failed(RunFailed("the disk is full"))
    assert "> the disk is full" in board.by_key["what-went-wrong"]
    assert "prefect flow-run retry the-id" in board.by_key["what-went-wrong"]


def test_what_a_run_warns_of_stands_on_its_page(
    page: Page, board: Noted, run_file: Callable[..., Path], classification: dict[str, Any]
):
    checked = check(read(run_file(classification)))
    page(Begun(checked, plan(checked), Places.of(checked)))
    log = logging.getLogger("rml")
    log.addHandler(page)
    try:
        for _ in range(2):
            log.warning("warning: three pictures are black")
    finally:
        log.removeHandler(page)
    assert board.by_key["summary"].endswith("### Warnings\n\n- three pictures are black")


def test_what_goes_wrong_on_the_page_is_no_failure_of_the_run(page: Page, board: Noted):
    page(Progress(1, 1, 0, 0.5, 1.0))
    assert board.why == ["ZeroDivisionError: division by zero"]


def test_what_stands_beside_the_bar(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shown, "held_bytes", lambda: 310_000_000)
    said = described(Blocks("evaluate epoch 3", 120, 4455, 170_000_000, 2.0))
    assert said == "evaluate epoch 3: 120 of 4455 blocks, 85 MB/s, 310 MB held"
    assert described(Blocks("load test", 1, 8, 0, 2.0)) == "load test: 1 of 8 blocks, 310 MB held"


def test_what_this_process_holds():
    before = held_bytes()
    held = np.ones(1 << 23)
    assert held_bytes() - before == pytest.approx(held.nbytes, rel=0.2)
