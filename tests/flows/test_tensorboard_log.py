"""What TensorBoard reads of a run, with its own reader: the figures of the logs, once each, resumed or not."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flows.phases import as_it_is, execute
from flows.tensorboard_log import FILES, written
from rml_core.check import check
from rml_core.config.problem import Refused
from rml_core.run import read

Rows = dict[str, list[tuple[int, float]]]
Begin = Callable[..., Any]


@pytest.fixture(autouse=True)
def watched(classification: dict[str, Any]) -> None:
    classification["neural_network"] |= {"tensorboard": "watched", "num_epochs": 3}


def shown(folder: Path) -> Rows:
    """What TensorBoard shows of a folder: (step, value) by tag."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def batches_of(folder: Path) -> Rows:
    """The same by the run's own log; six batches an epoch."""
    lines = [line.split() for line in (folder / "out_train.txt").read_text().splitlines()]
    steps = [(int(epoch) - 1) * 6 + int(batch) for epoch, batch, *_ in lines]
    return {
        tag: [(step, pytest.approx(float(line[column]), rel=1e-6)) for step, line in zip(steps, lines, strict=True)]
        for tag, column in (("loss", 3), ("grad_norm", 4))
    }


def epochs_of(folder: Path) -> Rows:
    """By the run's metrics; how long things took and how much memory there was are left out where it was resumed."""
    rows = [json.loads(line) for line in (folder / "out_metrics.jsonl").read_text().splitlines()]
    names = {"train_loss": "loss/train", "test_loss": "loss/test"}
    return {
        names.get(key, key): [(row["epoch"], pytest.approx(row[key], rel=1e-6)) for row in rows]
        for key in rows[0]
        if key in {*names, "accuracy", "learning_rate", "samples_per_s"}
    }


def assert_shown(folder: Path) -> None:
    assert shown(folder / "watched" / "batches") == batches_of(folder)
    epochs = shown(folder / "watched" / "epochs")
    expected = epochs_of(folder)
    assert set(expected) <= set(epochs)
    assert {tag: epochs[tag] for tag in expected} == expected
    assert all([step for step, _ in rows] == [1, 2, 3] for rows in epochs.values())


def test_every_batch_and_every_epoch_is_there_once(begin: Begin, tmp_path: Path) -> None:
    outcome = begin("run")
    assert_shown(tmp_path / "run")
    assert {"accuracy", "learning_rate", "samples_per_s", "time_s", "memory_mb"} <= set(
        shown(tmp_path / "run" / "watched" / "epochs")
    )
    assert (tmp_path / "run" / "watched", "for tensorboard --logdir") in outcome.places.written()


@pytest.mark.parametrize(
    "signalled",
    [
        {"before": "train epoch 2"},
        pytest.param({"after": "train epoch 2"}, marks=pytest.mark.slow),
        pytest.param({"before": "evaluate epoch 2"}, marks=pytest.mark.slow),
    ],
    ids=["in an epoch", "behind one", "before it is evaluated"],
)
def test_a_resumed_run_neither_doubles_nor_loses_a_step(
    begin: Begin, signalled: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        begin("run", **signalled)
    begin("run", resuming="auto")
    assert_shown(tmp_path / "run")


@pytest.mark.slow
def test_steps_behind_the_checkpoint_are_taken_back(begin: Begin, tmp_path: Path) -> None:
    """As after a kill: the run had gone on since."""
    begin("run")
    for epoch in (2, 3):
        (tmp_path / "run" / "checkpoints" / f"model_checkpoint_{epoch}.pt").unlink()
    begin("run", resuming="auto")
    assert_shown(tmp_path / "run")


def test_what_is_resumed_within_the_same_second_is_read_last(tmp_path: Path) -> None:
    """TensorBoard reads files in the order of their names: second, machine, process."""
    names = [tmp_path / name / f"events.out.tfevents.{int(time.time()):010d}.~" for name in ("batches", "epochs")]
    for name in names:
        name.parent.mkdir()
        name.touch()
    with written(tmp_path, epoch=1, batch=0, batches=6, evaluates=False):
        for name in names:
            assert sorted(name.parent.iterdir())[0] == name


@pytest.mark.slow
def test_a_new_run_replaces_what_was_there(begin: Begin, tmp_path: Path) -> None:
    begin("run")
    begin("run")
    assert_shown(tmp_path / "run")
    assert len(list((tmp_path / "run" / "watched").rglob(FILES))) == 2


@pytest.mark.slow
def test_a_run_without_evaluation_has_its_epochs(begin: Begin, classification: dict[str, Any], tmp_path: Path) -> None:
    del classification["neural_network"]["data"]["test_input_path"]
    del classification["neural_network"]["data"]["test_output_path"]
    begin("run")
    assert_shown(tmp_path / "run")


@pytest.mark.slow
def test_an_evaluation_writes_nothing_for_it(classification: dict[str, Any], begin: Begin, tmp_path: Path) -> None:
    begin("run")
    section = classification["neural_network"]
    del section["data"]["input_path"]
    section["checkpoints"] = {"load": "checkpoints/model_checkpoint_3.pt"}
    section["outfile"] = "evaluated.txt"
    execute(check(read(classification, tmp_path / "run")), as_it_is)
    assert_shown(tmp_path / "run")


def test_the_package_is_needed(classification: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(Refused) as refused:
        check(read(classification, tmp_path))
    assert str(refused.value) == (
        'neural_network.tensorboard: the package tensorboard is not installed\n    pip install "rml[tensorboard]"'
    )


def test_a_folder_that_cannot_be_written_is_refused(
    classification: dict[str, Any], begin: Begin, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    classification["neural_network"]["tensorboard"] = str(tmp_path / "file" / "watched")
    with pytest.raises(Refused) as refused:
        begin("run")
    assert str(refused.value) == (
        f"neural_network.tensorboard: {tmp_path}/file/watched cannot be written: {tmp_path}/file is a file\n"
        "    choose another place, or make this one writable"
    )
