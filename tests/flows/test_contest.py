"""Champion and challenger are held against each other on one and the same test data, whatever happens meanwhile."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import contest
from flows.champion import Champions
from flows.data_identity import Holdings
from flows.retraining import Ended
from rml_core.check import check
from rml_core.config.problem import Refused, RunFailed
from rml_core.data.files import Form, Item
from rml_core.data.survey import Survey

Round = Callable[..., Ended]


def put(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (12, 12), dtype=np.uint8))


def rows(folder: Path) -> list[dict[str, Any]]:
    return Champions(folder / "champion").history()


def after(phase: str, *actions: Callable[[], None], before: bool = False) -> Any:
    """Calls the phases, and behind (or before) each of that name the next of the actions."""
    left = list(actions)

    def do(name: str, function: Any, *arguments: Any) -> Any:
        if before and name == phase and left:
            left.pop(0)()
        result = function(*arguments)
        if not before and name == phase and left:
            left.pop(0)()
        return result

    return do


@contextmanager
def ignoring_ctrl_c() -> Iterator[list[int]]:
    """Who has the signal lets the process go on."""
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, handler)


def test_test_data_that_change_between_the_evaluations_are_evaluated_on_again(
    made: Round, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Same names, other content: the champion is not held against figures of other pictures."""
    made("a")
    picture = tmp_path / "data/test/left/img0.png"
    phases: list[str] = []
    changing = after("evaluate challenger", lambda: put(picture, 9))

    def do(name: str, function: Any, *arguments: Any) -> Any:
        phases.append(name)
        return changing(name, function, *arguments)

    with caplog.at_level("INFO"):
        ended = made("b", do, if_unchanged="train", margin=9.0)
    assert phases.count("evaluate challenger") == phases.count("evaluate champion") == 2
    assert "the test data changed while challenger and champion were evaluated: both are evaluated again" in [
        record.message for record in caplog.records
    ]
    assert ended.row is not None
    assert ended.row["changes"] == {"training inputs": "unchanged", "test inputs": "1 changed"}
    again = made("c", if_unchanged="train", margin=9.0, warm_start=False)
    assert again.row is not None
    assert again.row["changes"] == {"training inputs": "unchanged", "test inputs": "unchanged"}
    assert again.row["champion"]["figures"] == ended.row["champion"]["figures"]


def test_test_data_that_do_not_come_to_rest_end_the_round(made: Round, tmp_path: Path):
    made("a")
    picture = tmp_path / "data/test/left/img0.png"
    changes = [lambda seed=seed: put(picture, seed) for seed in range(4)]
    with pytest.raises(RunFailed) as failed:
        made("b", after("evaluate champion", *changes), if_unchanged="train")
    assert str(failed.value) == (
        "the test data changed in each of 3 evaluations of challenger and champion: put files there at once, by "
        "renaming; the champion is who it was"
    )
    assert len(rows(tmp_path)) == 1
    assert made("b", if_unchanged="train", margin=9.0).name == "kept"


def test_test_files_that_come_while_it_trains_cost_no_training_and_are_evaluated_on(
    made: Round, learning: dict[str, Any], tmp_path: Path
):
    first = made("a", after("train epoch 2", lambda: put(tmp_path / "data/test/left/new.png", 3)))
    assert first.row is not None
    assert first.row["samples"] == {"training": 24, "test": 11}
    assert sum(first.row["challenger"]["figures"]["support"]) == 11
    assert made("b").message == (
        f"nothing new since round 1 ({rows(tmp_path)[0]['ended']}): the same run file, and the same 35 files"
    )


def test_training_files_that_come_or_change_while_it_trains_are_new_to_the_next_round(made: Round, tmp_path: Path):
    def arrive() -> None:
        put(tmp_path / "data/train/left/new.png", 3)
        put(tmp_path / "data/train/left/img0.png", 4)

    assert made("a", after("train epoch 2", arrive)).name == "promoted"
    second = made("b", margin=9.0)
    assert second.row is not None
    assert second.row["changes"] == {"training inputs": "1 new, 1 changed", "test inputs": "unchanged"}
    assert made("c", margin=9.0).name == "nothing new"


def test_a_round_goes_on_where_only_the_test_data_have_changed(made: Round, tmp_path: Path):
    def stopped(name: str, function: Any, *arguments: Any) -> Any:
        if name == "evaluate challenger":
            raise RunFailed("stopped")
        return function(*arguments)

    with pytest.raises(RunFailed, match="stopped"):
        made("a", stopped)
    put(tmp_path / "data/test/left/new.png", 3)
    phases: list[str] = []

    def counted(name: str, function: Any, *arguments: Any) -> Any:
        phases.append(name)
        return function(*arguments)

    ended = made("a", counted)
    assert ended.row is not None
    assert (ended.row["round"], ended.row["samples"]["test"]) == (1, 11)
    assert [name for name in phases if name.startswith("train epoch")] == []
    put(tmp_path / "data/train/left/new.png", 4)
    with pytest.raises(RunFailed, match="stopped"):
        made("b", stopped)
    put(tmp_path / "data/train/left/other.png", 5)
    third = made("b", margin=9.0)
    assert third.row is not None
    assert third.row["round"] == 3


def test_a_challenger_that_does_not_fit_the_test_data_of_now_ends_the_round(made: Round, tmp_path: Path):
    with pytest.raises(RunFailed) as failed:
        made("a", after("train epoch 2", lambda: put(tmp_path / "data/test/up/new.png", 3)))
    assert str(failed.value) == (
        "the challenger cannot be evaluated on today's test data: "
        f'class "up" of {tmp_path}/data/test/up/new.png was not there in training'
    )


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (
            "train epoch 1",
            "round 2: training was stopped before its end: the champion is who it was; what was trained is in "
            "FOLDER/champion/rounds/0002/checkpoints",
        ),
        ("evaluate challenger", "challenger: the evaluation was stopped: the champion is who it was"),
        ("evaluate champion", "champion: the evaluation was stopped: the champion is who it was"),
    ],
)
def test_a_round_that_a_signal_has_stopped_promotes_nobody(made: Round, tmp_path: Path, phase: str, message: str):
    """Also where whoever has the signal lets the process go on."""
    made("a")
    put(tmp_path / "data/train/left/new.png", 3)
    with ignoring_ctrl_c() as came, pytest.raises(RunFailed) as failed:
        made("b", after(phase, lambda: signal.raise_signal(signal.SIGINT), before=True))
    assert came == [signal.SIGINT]
    assert str(failed.value) == message.replace("FOLDER", str(tmp_path))
    assert [row["round"] for row in rows(tmp_path)] == [1]
    ended = made("b", margin=9.0)
    assert ended.row is not None
    assert (ended.row["round"], ended.row["challenger"]["epoch"]) == (2, 2)


def test_what_a_kill_before_the_report_has_left_out_is_made_up_for(made: Round, tmp_path: Path):
    for name in "abc":
        made(name, if_unchanged="train", keep=9)
    rounds = tmp_path / "champion/rounds"
    report, picture = ((rounds / "0003" / name).read_bytes() for name in ("report.md", "report.png"))

    def killed() -> None:
        (rounds / "0003/report.md").unlink(missing_ok=True)
        (rounds / "0003/report.png").unlink(missing_ok=True)

    # The same run again, and another one.
    for name in "cd":
        killed()
        made(name, keep=1)
        assert ((rounds / "0003/report.md").read_bytes(), (rounds / "0003/report.png").read_bytes()) == (
            report,
            picture,
        )
    champions = {row["round"] for row in rows(tmp_path) if row["promoted"]}
    assert sorted(os.listdir(rounds)) == sorted({"0003", f"{max(champions):04d}"})


def of_masks(learning: dict[str, Any], folder: Path, value: int) -> None:
    """The run file learns masks, whose values are 0 and `value`."""
    random = np.random.default_rng(0)
    for name in ("train", "test"):
        mask = (random.random((8, 8, 4)) < 0.5).astype(np.uint8)
        np.save(folder / f"{name}.npy", mask.astype(np.float32))
        np.save(folder / f"{name}_mask.npy", mask * np.uint8(value))
    learning["data"] = {
        "type": "numpy",
        "target_is_mask": True,
        "input_path": "train.npy",
        "target_path": "train_mask.npy",
        "test_input_path": "test.npy",
        "test_target_path": "test_mask.npy",
        "slicers": [{"name": "xy", "sizes": [8, 8, 1]}],
    }
    learning["layers"] = [{"class_name": "Conv2D", "config": {"filters": 1, "kernel_size": 1, "activation": "sigmoid"}}]
    learning["loss"] = {"function": "BCE"}


def test_a_champion_of_other_values_of_masks_is_unfit(made: Round, learning: dict[str, Any], tmp_path: Path):
    of_masks(learning, tmp_path, 255)
    made("a")
    of_masks(learning, tmp_path, 128)
    ended = made("b", margin=9.0)
    assert ended.row is not None
    assert (ended.name, ended.row["champion"]["value"]) == ("promoted", None)
    assert ended.row["why"] == (
        f"the champion cannot be evaluated on today's test data: load test: {tmp_path}/test_mask.npy: value 128 stands "
        "for no class: training masks have 0, 255; mend it, or train on masks that have this value"
    )


def test_a_champion_that_does_not_know_the_class_of_the_metric_is_unfit(
    made: Round, learning: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made("a")
    figures_of = contest.evaluation.figures_of
    asked: list[Any] = []

    def without_right(outcome: Any) -> dict[str, Any]:
        found = figures_of(outcome)
        asked.append(found)
        return found if len(asked) == 1 else {**found, "classes": ["left", "other"]}

    monkeypatch.setattr(contest.evaluation, "figures_of", without_right)
    ended = made("b", if_unchanged="train", metric="recall:right", margin=9.0)
    assert ended.row is not None
    assert (ended.name, ended.row["why"]) == (
        "promoted",
        'the champion cannot be evaluated on today\'s test data: it has learned no class "right", of which the metric '
        "recall:right is",
    )


def test_a_metric_of_a_class_that_no_mask_has_is_told_before_training(
    made: Round, learning: dict[str, Any], tmp_path: Path
):
    of_masks(learning, tmp_path, 255)
    phases: list[str] = []

    def counted(name: str, function: Any, *arguments: Any) -> Any:
        phases.append(name)
        return function(*arguments)

    with pytest.raises(Refused) as refused:
        made("a", counted, metric="dice:7")
    assert str(refused.value) == 'metric: there is no class "7"\n    allowed: 0, 255'
    assert not any(name.startswith("train") for name in phases)
    assert made("b", metric="dice:255").name == "promoted"


def test_a_champions_run_file_with_tensorboard_needs_no_package_to_be_evaluated(
    made: Round, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learning: dict[str, Any]
):
    learning["tensorboard"] = "logs"
    made("a")
    del learning["tensorboard"]
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tensorboard" else find(name))
    ended = made("b", if_unchanged="train", margin=9.0)
    assert ended.row is not None
    assert (ended.name, ended.row["champion"]["value"]) == ("kept", rows(tmp_path)[0]["challenger"]["value"])


@pytest.mark.parametrize("times", [1, 2])
def test_a_champion_that_takes_other_targets_is_unfit_and_one_that_did_for_a_moment_is_not(
    made: Round, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
):
    made("a")
    asked: list[str] = []

    def other(run: Any, app: Any) -> Any:
        checked = check(run, app)
        asked.append(str(run.file.checkpoints.load))
        if asked[-1].endswith("champion.pt") and asked.count(asked[-1]) <= times:
            test = checked.test
            assert test is not None
            assert test.labels is not None
            return replace(checked, test=replace(test, labels=tuple(1 - label for label in test.labels)))
        return checked

    monkeypatch.setattr(contest, "check", other)
    if times == 1:
        with pytest.raises(RunFailed) as failed:
            made("b", if_unchanged="train", margin=9.0)
        assert str(failed.value) == "champion: the test samples changed while they were looked at"
        return
    ended = made("b", if_unchanged="train", margin=9.0)
    assert ended.row is not None
    assert ended.row["why"] == (
        "the champion cannot be evaluated on today's test data: its run file takes other samples, or other targets, "
        "from them than today's"
    )


LABELS = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(LABELS, st.permutations(["a", "b", "c"]))
@settings(max_examples=50, deadline=None)
def test_labels_are_the_same_where_the_classes_of_samples_are(labels: list[int], names: list[str]):
    """Whatever numbers another network has for the classes."""

    def survey(numbers: list[int], classes: tuple[str, ...]) -> Survey:
        items = tuple(Item(str(number)) for number in range(len(numbers)))
        return Survey("test", items, (), None, tuple(numbers), classes, (1,), None, 1, Form("images"))

    one = survey(labels, ("a", "b", "c"))
    other = survey([names.index("abc"[label]) for label in labels], tuple(names))
    assert contest._truth(one) == contest._truth(other)
    changed = [(label + 1) % 3 for label in labels]
    assert contest._truth(one) != contest._truth(survey(changed, ("a", "b", "c")))


def test_the_data_of_a_row_are_those_that_the_round_has_left(made: Round, tmp_path: Path):
    made("a", after("train epoch 2", lambda: put(tmp_path / "data/test/left/new.png", 3)))
    text = (tmp_path / "champion/rounds/0001/data.json").read_text()
    assert rows(tmp_path)[0]["data"] == Holdings.from_json(text).digest()
    assert len(json.loads(text)["sides"]["test inputs"]) == 11
