"""Keeps the page of a flow run up to date: listens to its events, and makes artifacts of them."""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.context import FlowRunContext, TaskRunContext
from prefect.states import Completed

from flows import device_slots, report
from flows.begun import Begun
from flows.page import words
from flows.page.board import BETWEEN, Board, Content
from flows.page.drawing import drawn
from flows.page.failure import SUBMIT, FlowRun, what_to_do
from flows.phases import Outcome
from flows.slice_table import SliceTable
from rml_core.engine.progress import Blocks, Progress
from tasks import ranks
from tasks.evaluate import AssembledEpoch, EvaluatedEpoch
from tasks.progress import listening, log
from tasks.train_epoch import TrainedEpoch

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

# Seconds until curves are drawn the first time: a run that is over by then has them at its end.
FIRST_CURVES = 20.0
# And between two drawings, which another process makes beside the training.
BETWEEN_CURVES = 60.0
# The log has them all.
MOST_WARNINGS = 50


@dataclass
class _Phase:
    """How far the phase of a task run is, in percent."""

    began: float
    percent: float = 0.0
    told: bool = False


class Page(logging.Handler):
    """Shows one flow run on `board`; it is called in the task run whose phase has published the event. What goes wrong
    here is said, and is no failure of the run."""

    def __init__(self, board: Board, run: FlowRun):
        super().__init__(logging.WARNING)
        self._board, self._run = board, run
        self._begun: Begun | None = None
        self._history: list[dict[str, Any]] = []
        self._warnings: list[str] = []
        self._phases: dict[UUID | None, _Phase] = {}
        self._ended = False

    def __call__(self, event: object) -> None:
        try:
            self._take(event)
        except Exception as error:
            self._board.warn(f"{type(error).__name__}: {error}")

    def emit(self, record: logging.LogRecord) -> None:
        """What the run warns of stands on its page."""
        text = record.getMessage().removeprefix("warning: ")
        if text not in self._warnings and len(self._warnings) < MOST_WARNINGS:
            self._warnings.append(text)
            self._summarize()

    def _take(self, event: object) -> None:
        if isinstance(event, Progress):
            self._progress_of_epoch(event)
        elif isinstance(event, Blocks):
            self._progress_of_blocks(event)
        elif self._ended:
            # What a flow does behind its run, as to compare it, has a report of its own.
            return
        elif isinstance(event, TrainedEpoch | EvaluatedEpoch | AssembledEpoch):
            self._epoch(event)
        elif isinstance(event, Begun):
            self._begin(event)
        elif isinstance(event, SliceTable):
            self._put("slice-sets", "table", json.dumps(event.rows), "what the slicers make")

    def _put(self, key: str, kind: str, data: Any, description: str) -> None:
        self._board.put(key, lambda: Content(kind, data, description, key))

    def _begin(self, begun: Begun) -> None:
        self._begun = begun
        mapping, network = begun.checked.run.mapping, begun.checked.network
        layers = f"{network.parameters:,} parameters, {network.trainable:,} trainable"
        self._board.put("run-file", lambda: Content("markdown", words.run_file(mapping), "as it was given", "run-file"))
        self._board.put("network", lambda: Content("markdown", words.network(begun), f"layers: {layers}", "network"))
        self._summarize()

    def _summarize(self, ended: bool = False) -> None:
        begun, history, warnings = self._begun, self._history, tuple(self._warnings)
        if begun is None:
            return

        def make() -> Content:
            text = words.summary(begun, history, warnings, ended)
            return Content("markdown", text, "what is run, where its outputs are, warnings", "summary")

        self._board.put("summary", make)

    def _epoch(self, event: TrainedEpoch | EvaluatedEpoch | AssembledEpoch) -> None:
        self._history = ranks.history(event.ranks)
        self._show_epochs()
        if not isinstance(event, TrainedEpoch) or not self._evaluates:
            gallery, history, begun = ranks.gallery(event.ranks), self._history, self._begun
            if begun is None or not history:
                return
            classes = begun.checked.classes
            source = begun.checked.fitted.source if begun.checked.fitted is not None else ""

            def make() -> Content:
                return _curves(drawn(history, gallery, classes, source), history)

            self._board.put("curves", make, after=FIRST_CURVES)

    @property
    def _evaluates(self) -> bool:
        return self._begun is not None and self._begun.checked.test is not None

    @property
    def _last(self) -> int:
        return self._begun.checked.run.file.num_epochs if self._begun is not None else 1

    def _show_epochs(self) -> None:
        history, last = self._history, self._last

        def make() -> Content | None:
            rows = words.epochs(history)
            return Content("table", json.dumps(rows), words.headline(history, last), "epochs") if rows else None

        self._board.put("epochs", make)

    def _progress_of_epoch(self, event: Progress) -> None:
        phase = self._phase(time.monotonic())
        first, last = self._begun.epochs_with(event.epoch) if self._begun is not None else (event.epoch, event.epoch)
        phase.percent = 100 * (event.epoch - first + event.batch / event.batches) / (last - first + 1)
        said = f"epoch {event.epoch}: batch {event.batch} of {event.batches}, loss {event.loss:.4g}"
        self._tell(phase, f"{said}, {event.samples_per_s:.0f} samples/s", phase.percent == 100)

    def _progress_of_blocks(self, event: Blocks) -> None:
        now = time.monotonic()
        phase, done = self._phase(now - event.seconds), event.done == event.total
        task = TaskRunContext.get()
        alone = self._begun is None or task is None or not self._begun.is_group(task.task_run.name)
        if alone:
            phase.percent = 100 * event.done / event.total
        self._tell(phase, described(event), done, always=alone)

    def _phase(self, began: float) -> _Phase:
        task = TaskRunContext.get()
        return self._phases.setdefault(task.task_run.id if task is not None else None, _Phase(began))

    def _tell(self, phase: _Phase, said: str, done: bool, always: bool = False) -> None:
        """Nothing of what takes less than a moment, but that it is done where it is `always` told."""
        task = TaskRunContext.get()
        if task is None or not (phase.told or time.monotonic() - phase.began >= BETWEEN or (done and always)):
            return
        phase.told = True
        run, percent = task.task_run.id, phase.percent
        self._board.put(run, lambda: Content("progress", percent, said, task_run=run))

    def done(self, outcome: Outcome) -> None:
        """The last of everything; what comes after it belongs to no run."""
        self._ended, self._history = True, outcome.history
        self._show_epochs()
        picture = report.of(outcome)
        self._board.put("curves", lambda: _curves(picture, outcome.history))
        sections = report.sections(outcome)
        if sections is not None:
            said = "sections through the prediction, beside what it was made of"
            self._put("sections", "markdown", _picture("sections", sections), said)
        self._summarize(ended=True)

    @property
    def completed(self) -> State[None]:
        """The state in which the flow run ends, which says how it went."""
        return Completed(message=words.headline(self._history, self._last))

    def failed(self, error: BaseException) -> None:
        """Why, and what to do."""
        self._summarize(ended=True)
        text = what_to_do(error, self._begun, self._run)
        self._put("what-went-wrong", "markdown", text, "why the run has ended, and what to do")


def _curves(picture: bytes, history: list[dict[str, Any]]) -> Content:
    said = f"curves, and test samples with what the network makes of them, after epoch {history[-1]['epoch']}"
    return Content("markdown", _picture("curves", picture), said, "curves", between=BETWEEN_CURVES)


def _picture(name: str, picture: bytes) -> str:
    """Within markdown: an artifact that is an image by itself shows its URL as well, which here is its bytes."""
    return f"![{name}](data:image/png;base64,{base64.b64encode(picture).decode()})"


@contextmanager
def page(anew: str = SUBMIT) -> Iterator[Page]:
    """The page of the flow run that this is called in, kept up to date while the context lasts. `anew`: the command
    that submits such a run."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run = context.flow_run
    board = Board(run.id, again=run.run_count > 1)
    shown = Page(board, FlowRun(str(run.id), anew if run.deployment_id is not None else None))
    log.addHandler(shown)
    try:
        with listening(shown), device_slots.shown(f"flow run {run.name}", run.id):
            try:
                yield shown
            except BaseException as error:
                shown.failed(error)
                raise
    finally:
        log.removeHandler(shown)
        board.close()


def described(blocks: Blocks) -> str:
    """`evaluate epoch 3: 120 of 4455 blocks, 85 MB/s, 310 MB held`"""
    parts = [f"{blocks.phase}: {blocks.done} of {blocks.total} blocks"]
    if blocks.bytes:
        parts.append(f"{blocks.mb_per_s:.3g} MB/s")
    return ", ".join([*parts, f"{held_bytes() / 1e6:.0f} MB held"])


def held_bytes() -> int:
    """Of memory, by this process, now; mapped files included as far as they are there."""
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
