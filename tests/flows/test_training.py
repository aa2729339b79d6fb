"""The loop over epochs: where a signal meets it, what ends it early, what it keeps."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.phases import Outcome, as_it_is, execute
from flows.training import best_epoch, out_of_patience
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.run import EarlyStopping, read


def names(folder: Path) -> list[str]:
    return sorted(path.name.removeprefix("model_checkpoint_") for path in (folder / "checkpoints").glob("*.pt"))


def lines(path: Path, time: int) -> list[list[str]]:
    rows = [line.split() for line in path.read_text().splitlines()]
    return [[*row[:time], *row[time + 1 :]] for row in rows]


@pytest.mark.parametrize(
    ("when", "left", "position"),
    [
        # A pass that has not begun when the signal comes does one update.
        ({"before": "train epoch 2"}, ["1.pt", "interrupted.pt"], (2, 1)),
        ({"after": "train epoch 2"}, ["1.pt", "2.pt", "interrupted.pt"], (2, 0)),
        ({"before": "checkpoint epoch 2"}, ["1.pt", "2.pt", "interrupted.pt"], (2, 0)),
        ({"after": "checkpoint epoch 2"}, ["1.pt", "2.pt", "interrupted.pt"], (2, 0)),
        ({"before": "evaluate epoch 2"}, ["1.pt", "2.pt", "interrupted.pt"], (2, 0)),
        ({"after": "evaluate epoch 2"}, ["1.pt", "2.pt", "interrupted.pt"], (2, 0)),
        ({"after": "train epoch 3"}, ["1.pt", "2.pt", "3.pt", "interrupted.pt"], (3, 0)),
        ({"before": "evaluate epoch 3"}, ["1.pt", "2.pt", "3.pt", "interrupted.pt"], (3, 0)),
        ({"after": "evaluate epoch 3"}, ["1.pt", "2.pt", "3.pt", "interrupted.pt"], (3, 0)),
    ],
)
def test_a_signal_between_phases(
    begin: Callable[..., Outcome],
    assert_same: Callable[[Path, Path], None],
    tmp_path: Path,
    when: dict[str, str],
    left: list[str],
    position: tuple[int, int],
):
    begin("whole")
    with pytest.raises(KeyboardInterrupt):
        begin("stopped", **when)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    stopped = tmp_path / "stopped"
    assert names(stopped) == left
    saved = native.read(native.interrupted_path(stopped / "checkpoints"), "")
    assert (saved["epoch"], saved["batch"]) == position
    begin("stopped", resuming="auto")
    assert names(stopped) == ["1.pt", "2.pt", "3.pt"]
    assert_same(stopped, tmp_path / "whole")
    assert sorted(path.name for path in (stopped / "predictions").iterdir()) == [
        "output_1.h5",
        "output_2.h5",
        "output_3.h5",
    ]


@pytest.mark.parametrize("interval", [1, 2, 4])
def test_an_interrupted_checkpoint_stays_until_a_later_one_is_there(
    begin: Callable[..., Outcome],
    assert_same: Callable[[Path, Path], None],
    classification: dict[str, Any],
    tmp_path: Path,
    interval: int,
):
    section = classification["neural_network"]
    section["checkpoints"]["interval"] = interval
    section["optimizer"]["accumulate"] = 4
    begin("whole")
    with pytest.raises(KeyboardInterrupt):
        begin("stopped", before="train epoch 2")
    stopped = tmp_path / "stopped"
    # It stops behind an update, not between the batches that make one.
    assert native.read(native.interrupted_path(stopped / "checkpoints"), "")["batch"] == 4
    phases = []

    def do(phase: str, function: Callable[..., Any], *arguments: Any) -> Any:
        phases.append((phase, "interrupted.pt" in names(stopped)))
        return function(*arguments)

    execute(check(read(classification, stopped)), do, resuming="auto")
    first = next(epoch for epoch in (2, 3) if epoch % interval == 0 or epoch == 3)
    assert [phase for phase, there in phases if there][-1] == f"checkpoint epoch {first}"
    assert names(stopped) == names(tmp_path / "whole")
    assert_same(stopped, tmp_path / "whole")


@pytest.mark.parametrize("change", [{"num_epochs": 2}, {"early_stopping": {"patience": 1, "min_delta": 1e9}}])
def test_an_interrupted_checkpoint_that_ends_the_run_becomes_the_epochs(
    begin: Callable[..., Outcome], classification: dict[str, Any], tmp_path: Path, change: dict[str, Any]
):
    section = classification["neural_network"]
    section["checkpoints"]["interval"] = 3
    with pytest.raises(KeyboardInterrupt):
        begin("stopped", after="train epoch 2")
    folder = tmp_path / "stopped"
    assert names(folder) == ["interrupted.pt"]
    weights = native.read(native.interrupted_path(folder / "checkpoints"), "")["network"]
    section.update(change)
    begin("stopped", resuming="auto")
    assert names(folder) == ["2.pt"]
    saved = native.read(native.epoch_path(folder / "checkpoints", 2), "")
    assert (saved["epoch"], saved["batch"]) == (2, 0)
    assert all(torch.equal(saved["network"][name], values) for name, values in weights.items())
    assert [row["epoch"] for row in json.loads(saved["history"]) if "test_loss" in row] == [1, 2]


def test_an_interrupted_run_that_saves_nothing_says_so(
    begin: Callable[..., Outcome], classification: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    del classification["neural_network"]["checkpoints"]
    with caplog.at_level("INFO", "rml"), pytest.raises(KeyboardInterrupt):
        begin("stopped", after="train epoch 1")
    assert caplog.messages[-1] == "interrupted; nothing was saved, because checkpoints.save is not set"
    assert not list(tmp_path.rglob("*.pt"))


def test_an_interrupted_evaluation_leaves_no_half_a_file(
    begin: Callable[..., Outcome], classification: dict[str, Any], tmp_path: Path
):
    section = classification["neural_network"]
    section["data"]["input_path"] = None
    with pytest.raises(KeyboardInterrupt):
        begin("stopped", before="evaluate epoch 1")
    assert list((tmp_path / "stopped" / "predictions").iterdir()) == []
    assert (tmp_path / "stopped" / "out_test.txt").read_text() == ""


# --- early stopping, best, keep


def history(*figures: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "test_loss": loss, "accuracy": accuracy} for epoch, (loss, accuracy) in enumerate(figures, 1)
    ]


nan = float("nan")


@pytest.mark.parametrize(
    ("rows", "metric", "best"),
    [
        ([], None, None),
        ([{"epoch": 1, "train_loss": 1.0}], None, None),
        (history((3, 0.5), (2, 0.7), (1, 0.6)), None, 2),
        (history((3, 0.5), (2, 0.7), (1, 0.6)), "loss", 3),
        (history((3, 0.5), (2, 0.7), (1, 0.7)), "accuracy", 2),
        (history((3, nan), (2, nan), (2, nan)), None, 2),
        (history((nan, nan)), None, None),
        (history((nan, 0.5), (1, nan)), "loss", 2),
    ],
)
def test_best_epoch(rows: list[dict[str, Any]], metric: str | None, best: int | None):
    assert best_epoch(rows, metric) == best


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 4), st.sampled_from([0.0, 1.0]), st.sampled_from("la"))
def test_patience(values: list[int], patience: int, min_delta: float, which: str):
    """Epoch e improves when it beats the best of the improving ones before it by more than `min_delta`."""
    metric = {"l": "loss", "a": "accuracy"}[which]
    stopping = EarlyStopping(metric=metric, patience=patience, min_delta=min_delta)
    rows = history(*[(value, -value) for value in values])
    improving: list[int] = []
    for place, value in enumerate(values):
        if not improving or value < values[improving[-1]] - min_delta:
            improving.append(place)
    since = len(values) - 1 - improving[-1] if improving else 0
    assert out_of_patience(rows, stopping) is (since >= patience)


def test_early_stopping_ends_a_run_and_saves_its_last_epoch(
    begin: Callable[..., Outcome], classification: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    section = classification["neural_network"]
    section["num_epochs"] = 50
    section["checkpoints"].update(interval=3, best=True)
    section["early_stopping"] = {"metric": "accuracy", "patience": 2, "min_delta": 1.0}
    with caplog.at_level("INFO", "rml"):
        begin("stopped")
    folder = tmp_path / "stopped"
    assert caplog.messages[-1] == "early stopping: accuracy has not improved for 2 epochs"
    # Accuracies lie in [0, 1]: none is better than the first by more than 1.
    assert [row[0] for row in lines(folder / "out_test.txt", 1)] == ["1", "2", "3"]
    assert names(folder) == ["3.pt", "best.pt"]
    section["early_stopping"]["patience"] = 3
    with caplog.at_level("INFO", "rml"):
        begin("stopped", resuming="auto")
    assert caplog.messages[-1] == "early stopping: accuracy has not improved for 3 epochs"
    assert [row[0] for row in lines(folder / "out_test.txt", 1)] == ["1", "2", "3", "4"]
    assert names(folder) == ["3.pt", "4.pt", "best.pt"]


def test_the_newest_are_kept_and_the_best_is_the_best(
    begin: Callable[..., Outcome], classification: dict[str, Any], tmp_path: Path
):
    section = classification["neural_network"]
    section["num_epochs"] = 6
    section["checkpoints"].update(keep=2, best=True)
    outcome = begin("kept")
    folder = tmp_path / "kept"
    assert names(folder) == ["5.pt", "6.pt", "best.pt"]
    accuracies = [row["accuracy"] for row in outcome.history]
    best = native.read(native.best_path(folder / "checkpoints"), "")
    assert best["epoch"] == accuracies.index(max(accuracies)) + 1


def test_many_epochs_are_run_in_groups(begin: Callable[..., Outcome], classification: dict[str, Any], tmp_path: Path):
    section = classification["neural_network"]
    section.update(num_epochs=201, layers=section["layers"][3:])
    section["data"].update(batch_size=24, test_output_path=None)
    section["checkpoints"]["interval"] = 40
    with pytest.raises(KeyboardInterrupt):
        begin("long", before="train epochs 100-102")
    assert names(tmp_path / "long") == ["40.pt", "80.pt", "interrupted.pt"]
    begin("long", resuming="auto")
    train = lines(tmp_path / "long" / "out_train.txt", 2)
    assert [(row[0], row[1]) for row in train] == [(str(epoch), "1") for epoch in range(1, 202)]
    assert [row[0] for row in lines(tmp_path / "long" / "out_test.txt", 1)] == [str(epoch) for epoch in range(1, 202)]
    assert names(tmp_path / "long") == ["120.pt", "160.pt", "200.pt", "201.pt", "40.pt", "80.pt"]


def test_warnings_are_the_runs_own(
    begin: Callable[..., Outcome], classification: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    """A flow that a deployment starts has no command that could say them."""
    classification["neural_network"]["layers"][-1]["config"]["activation"] = "softmax"
    with caplog.at_level("INFO", "rml"):
        begin("warned")
    assert caplog.messages[0].startswith("warning: neural_network.loss: NLL after softmax: the log is taken")
    assert caplog.records[0].levelname == "WARNING"


def test_a_phase_as_a_plain_call():
    assert as_it_is("sum", lambda *numbers: sum(numbers), 1, 2) == 3
