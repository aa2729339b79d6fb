"""Rounds of retraining: what is new, who is compared with whom on what, and what is left after a kill."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flows import challenger, contest, retraining
from flows.champion import Champions
from flows.novelty import learned_identity
from flows.retraining import Ended, Retraining, planned, retrained
from flows.training import as_it_is
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.config.problem import Problem, Refused, RunFailed
from rml_core.config.section import parse
from rml_core.engine.claim import claimed
from rml_core.run import read

Round = Callable[..., Ended]


@pytest.fixture
def section(learning: dict[str, Any]) -> dict[str, Any]:
    return learning


def add(folder: Path, name: str, seed: int = 7) -> None:
    cv2.imwrite(str(folder / name), np.random.default_rng(seed).integers(0, 255, (12, 12), dtype=np.uint8))


def rows(folder: Path) -> list[dict[str, Any]]:
    return Champions(folder / "champion").history()


def test_data_that_arrive_make_a_round_and_unchanged_ones_none(made: Round, section: dict[str, Any], tmp_path: Path):
    told: list[int] = []
    first = made("a", promoted=lambda row: told.append(row["round"]))
    assert (first.name, first.message) == (
        "promoted",
        "round 1: the challenger is champion: the first one: there was no champion",
    )
    (tmp_path / "data/train/left/img0.png").touch()
    section["outfile"], section["data"]["preload"] = "other.txt", False
    second = made("b")
    ended = rows(tmp_path)[0]["ended"]
    assert (second.name, second.message) == (
        "nothing new",
        f"nothing new since round 1 ({ended}): the same run file, and the same 34 files",
    )
    add(tmp_path / "data/train/left", "new.png")
    phases: list[str] = []

    def do(name: str, function: Any, *arguments: Any) -> Any:
        phases.append(name)
        return function(*arguments)

    third = made("c", do, margin=1.0)
    assert (third.name, told) == ("kept", [1])
    assert third.row is not None
    assert third.row["changes"] == {"training inputs": "1 new", "test inputs": "unchanged"}
    assert [name for name in phases if "ch" in name] == [
        *(f"{what} epoch {epoch}" for epoch in (1, 2) for what in ("train", "checkpoint", "evaluate")),
        *(f"{name} {who}" for who in ("challenger", "champion") for name in ("load test,", "build", "evaluate")),
    ]
    # The same weights on the same data have the same figures.
    assert third.row["champion"]["value"] == rows(tmp_path)[0]["challenger"]["value"]
    assert third.row["challenger"]["value"] == _last_accuracy(tmp_path / "champion/rounds/0002")
    saved = native.read(tmp_path / "champion/champion.pt", "")
    assert saved["run_id"] == rows(tmp_path)[0]["challenger"]["run_id"]
    assert not (tmp_path / "other.txt").exists()
    report = (tmp_path / "champion/rounds/0002/report.md").read_text()
    assert report == third.report
    assert report.startswith("# Round 2: the champion stays\n\nAccuracy ")
    assert cv2.imread(str(tmp_path / "champion/rounds/0002/report.png")).shape == (320, 960, 3)


def _last_accuracy(folder: Path) -> float:
    lines = (folder / "out_metrics.jsonl").read_text().splitlines()
    return float(json.loads(lines[-1])["accuracy"])


def test_a_round_begins_with_the_champions_weights_and_draws_anew(made: Round, tmp_path: Path):
    made("a")
    warm = made("b", if_unchanged="train", margin=9.0)
    cold = made("c", if_unchanged="train", warm_start=False, margin=9.0)
    assert [ended.name for ended in (warm, cold)] == ["kept", "kept"]
    states = [
        native.read(tmp_path / f"champion/rounds/000{n}/checkpoints/model_checkpoint_2.pt", "") for n in (1, 2, 3)
    ]
    runs = [json.loads(state["run"])["neural_network"] for state in states]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    assert [run["checkpoints"].get("load") for run in runs] == [None, str(tmp_path / "champion/champion.pt"), None]
    losses = [state["history"] for state in states]
    assert len(set(losses)) == 3
    assert json.loads(losses[1])[0]["train_loss"] < json.loads(losses[2])[0]["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train epoch 2", "evaluate challenger", "evaluate champion"])
def test_a_round_that_was_stopped_goes_on_where_it_stood(made: Round, tmp_path: Path, phase: str):
    """It ends as one that was not; no epoch is trained twice."""

    class Killed(BaseException):
        pass

    done: list[str] = []

    def killed(name: str, function: Any, *arguments: Any) -> Any:
        if name == phase:
            raise Killed
        done.append(name)
        return function(*arguments)

    def counted(name: str, function: Any, *arguments: Any) -> Any:
        done.append(name)
        return function(*arguments)

    made("a")
    add(tmp_path / "data/train/left", "new.png")
    shutil.copytree(tmp_path / "champion", tmp_path / "undisturbed")
    made("b", champion="undisturbed")
    with pytest.raises(Killed):
        made("b", killed)
    assert len(rows(tmp_path)) == 1
    made("b", counted)
    assert [done.count(f"train epoch {epoch}") for epoch in (1, 2)] == [1, 1]
    row, expected = rows(tmp_path)[1], Champions(tmp_path / "undisturbed").history()[1]
    assert row["challenger"]["figures"] == expected["challenger"]["figures"]
    assert (row["promoted"], row["why"]) == (expected["promoted"], expected["why"])
    who = "the challenger is champion" if row["promoted"] else "the champion stays"
    assert made("b").message == f"round 2: {who}: {row['why']}"
    assert len(rows(tmp_path)) == 2


def test_a_decision_that_was_not_carried_out_is_by_the_next_round(
    made: Round, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        pass

    def killed(*arguments: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("flows.champion.point_to", killed)
        with pytest.raises(Killed):
            made("a")
    assert (rows(tmp_path), Champions(tmp_path / "champion").champion) == ([], None)
    assert made("b").name == "nothing new"
    assert [row["promoted"] for row in rows(tmp_path)] == [True]
    assert (tmp_path / "champion/champion.pt").exists()


@pytest.mark.slow
def test_a_champion_of_other_classes_cannot_be_evaluated_and_goes(made: Round, section: dict[str, Any], tmp_path: Path):
    made("a")
    for role in ("train", "test"):
        (tmp_path / "data" / role / "up").mkdir()
        for number in range(3):
            add(tmp_path / "data" / role / "up", f"{number}.png", number)
    section["layers"][-1]["config"]["units"] = 3
    ended = made("b", warm_start=False)
    assert ended.name == "promoted"
    assert ended.row is not None
    assert ended.row["why"].startswith("the champion cannot be evaluated on today's test data: ")


def test_a_champion_that_cannot_be_read_stays(made: Round, tmp_path: Path):
    made("a")
    champion = tmp_path / "champion/champion.pt"
    weights = champion.read_bytes()

    def damaged(name: str, function: Any, *arguments: Any) -> Any:
        if name == "evaluate challenger":
            champion.unlink()
            champion.write_bytes(weights[:1000])
        return function(*arguments)

    with pytest.raises(RunFailed) as failed:
        made("b", damaged, if_unchanged="train", warm_start=False)
    assert str(failed.value) == (
        f"the champion cannot be read: {champion} is cut short; make it readable, or move it away: the next round then "
        "has no champion to beat"
    )
    assert len(rows(tmp_path)) == 1
    champion.write_bytes(weights)
    assert made("b", margin=9.0).name == "kept"


def test_data_that_are_away_for_a_moment_make_no_champion_unfit(
    made: Round, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made("a")
    asked: list[str] = []

    def away(run: Any, app: Any) -> Any:
        asked.append(str(run.file.checkpoints.load))
        if asked[-1].endswith("champion.pt") and asked.count(asked[-1]) == 1:
            raise Refused([Problem("neural_network.data.test_input_path", "data/test: input/output error")])
        return check(run, app)

    monkeypatch.setattr(contest, "check", away)
    ended = made("b", if_unchanged="train", warm_start=False, margin=9.0)
    assert ended.row is not None
    assert (ended.name, ended.row["champion"]["value"]) == ("kept", rows(tmp_path)[0]["challenger"]["value"])


def test_another_metric_or_margin_or_a_champion_that_is_gone_makes_a_round(made: Round, tmp_path: Path):
    assert [made("a").name, made("b").name] == ["promoted", "nothing new"]
    assert made("b", margin=9.0).name == "kept"
    assert made("c", margin=9.0).name == "nothing new"
    (tmp_path / "champion/champion.pt").unlink()
    assert made("d", margin=9.0).name == "promoted"
    assert made("e", margin=9.0, metric="loss").name == "kept"
    assert [row["metric"] for row in rows(tmp_path)] == ["accuracy", "accuracy", "accuracy", "loss"]


def test_a_round_whose_run_file_changed_meanwhile_begins_anew(
    made: Round, section: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def stopped(name: str, function: Any, *arguments: Any) -> Any:
        if name == "train epoch 2":
            raise RunFailed("stopped")
        return function(*arguments)

    with pytest.raises(RunFailed, match="stopped"):
        made("a", stopped)
    section["optimizer"]["learning_rate"] = 0.5
    ended = made("a")
    assert ended.row is not None
    assert (ended.name, ended.row["round"]) == ("promoted", 2)
    saved = native.read(tmp_path / "champion/champion.pt", "")
    assert json.loads(saved["run"])["neural_network"]["optimizer"]["learning_rate"] == 0.5


def test_who_has_waited_for_the_champion_looks_at_the_data_again(
    section: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Attempt:
        def wait(self, held: Refused) -> None:
            add(tmp_path / "data/train/left", "new.png")
            holding.close()

    plan = planned(Retraining(), {"neural_network": section}, tmp_path, None)
    holding = ExitStack()
    (tmp_path / "champion").mkdir()
    holding.enter_context(claimed([("champion", tmp_path / "champion")]))
    counts: list[int] = []

    def trained(checked: Any, *arguments: Any, **options: Any) -> Any:
        counts.append(checked.training.count)
        raise RunFailed("enough")

    monkeypatch.setattr(challenger, "execute", trained)
    with pytest.raises(RunFailed, match="enough"):
        retrained(plan, as_it_is, "a", attempt=Attempt())  # type: ignore[arg-type]
    assert plan.checked.training is not None
    assert counts == [plan.checked.training.count + 1]


@pytest.mark.slow
def test_the_best_epoch_is_the_challenger_where_the_run_file_says_so(
    made: Round, section: dict[str, Any], tmp_path: Path
):
    section["checkpoints"] = {"best": True}
    ended = made("a", metric="loss")
    assert ended.row is not None
    assert ended.row["challenger"]["checkpoint"] == "rounds/0001/checkpoints/model_checkpoint_best.pt"


def test_two_at_a_time_in_one_folder_are_refused(made: Round, tmp_path: Path):
    def again(name: str, function: Any, *arguments: Any) -> Any:
        with pytest.raises(Refused) as refused:
            made("b")
        assert str(refused.value) == (
            f"champion: another run is writing to {tmp_path}/champion\n"
            "    wait until it has ended, or give this run a place of its own"
        )
        raise RunFailed("enough")

    with pytest.raises(RunFailed, match="enough"):
        made("a", again)


def test_what_is_learned_decides_whether_a_run_file_is_new(section: dict[str, Any], tmp_path: Path):
    def identity(**changes: Any) -> str:
        changed = copy.deepcopy(section)
        for key, value in changes.items():
            held, _, name = key.rpartition("__")
            (changed[held] if held else changed)[name] = value
        return learned_identity(read({"neural_network": changed}, tmp_path))

    same = identity()
    (tmp_path / "net.json").write_text(json.dumps(section["layers"]))
    assert identity(layers="net.json") == same
    assert identity(outfile="b.txt", data__preload=False, checkpoints__save="b", checkpoints__keep=9) == same
    for changes in ({"num_epochs": 3}, {"seed": 1}, {"data__batch_size": 5}, {"checkpoints__best": True}):
        assert identity(**changes) != same


def test_what_retraining_needs_is_said_at_once(section: dict[str, Any], tmp_path: Path):
    del section["data"]["test_input_path"], section["data"]["test_output_path"]
    section["data"]["validation_split"] = 0.2
    section["optimizer"]["typ"] = "Adam"
    with pytest.raises(Refused) as refused:
        planned(Retraining(), {"neural_network": section}, tmp_path, None)
    assert [problem.where for problem in refused.value.problems] == ["neural_network.optimizer.typ"]
    del section["optimizer"]["typ"]
    with pytest.raises(Refused) as refused:
        planned(Retraining(), {"neural_network": section}, tmp_path, None)
    assert str(refused.value) == (
        "neural_network.data.validation_split: holds other samples out as the data grow, some of which the champion "
        "was trained on\n"
        "    keep test samples apart, and name them with test_input_path"
    )
    del section["data"]["validation_split"]
    with pytest.raises(Refused) as refused:
        planned(Retraining(metric="rmse"), {"neural_network": section}, tmp_path, None)
    assert str(refused.value) == (
        "neural_network.data.test_input_path: is missing: champion and challenger are compared on test samples"
    )
    section["data"]["test_input_path"] = "data/test"
    with pytest.raises(Refused) as refused:
        planned(Retraining(metric="recall:up"), {"neural_network": section}, tmp_path, None)
    assert str(refused.value) == 'metric: there is no class "up"\n    allowed: left, right'


def test_the_options_are_said_at_once():
    options = {"champion": "s3://bucket/a", "if_unchanged": "go", "metric": "acuracy", "margin": -1, "keep": 0}
    with pytest.raises(Refused) as refused:
        parse(retraining.Retraining, options, "")
    assert str(refused.value) == (
        'champion: "s3://bucket/a" is behind a URL, where no champion can be put in the other\'s place at once\n'
        "    allowed: a folder of this machine, or one that it shares with others\n"
        'if_unchanged: unknown value "go"\n'
        "    allowed: stop, train\n"
        'metric: "acuracy" is no metric\n'
        "    allowed: accuracy, loss, mae, rmse, or one of a class, as recall:cats: precision, recall, f1, dice, iou\n"
        '    did you mean "accuracy"?\n'
        "margin: -1 does not fit\n"
        "    allowed: greater than or equal to 0\n"
        "keep: 0 does not fit\n"
        "    allowed: greater than or equal to 1"
    )
