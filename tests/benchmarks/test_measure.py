from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def measure() -> Any:
    return importlib.import_module("measure")


def test_the_two_sides_take_turns_and_the_best_of_each_counts(measure: Any) -> None:
    turns: list[str] = []
    times = {"ours": iter([3.0, 1.0, 2.0]), "theirs": iter([6.0, 5.0, 4.0])}

    def side(name: str) -> Any:
        def measured() -> float:
            turns.append(name)
            return next(times[name])

        return measured

    row = measure.compare("a row", side("ours"), side("theirs"), 0.3, 3)
    assert turns == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert (row.ours, row.baseline, row.ratio, row.kept) == (1.0, 4.0, 0.25, True)


def test_a_bound_without_a_baseline_is_in_seconds(measure: Any) -> None:
    row = measure.compare("a row", lambda: 0.4, None, 0.3, 2)
    assert (row.ratio, row.kept) == (None, False)


def test_the_table_has_a_line_a_row(measure: Any) -> None:
    rows = [measure.Row("training", 1.0, 2.0, 0.85), measure.Row("one more phase", 0.01, None, 0.008)]
    assert measure.table(rows).splitlines() == [
        "name               ours  baseline  ratio   bound",
        "training         1.00 s    2.00 s  0.500    0.85    kept",
        "one more phase  10.0 ms                   8.0 ms  MISSED",
    ]


def test_the_first_epoch_of_a_log_is_left_out(measure: Any, tmp_path: Path) -> None:
    log = tmp_path / "out_train.txt"
    log.write_text("1 1 5.0 2.3 1\n1 2 6.0 2.2 1\n2 1 6.5 2.1 1\n2 2 7.0 2.0 1\n3 1 7.5 1.9 1\n3 2 8.25 1.8 1\n")
    assert measure.after_first_epoch(log) == 2.25
    assert measure.median_epoch(log) == 1.125


def test_a_log_of_one_epoch_says_that_it_is_too_short(measure: Any, tmp_path: Path) -> None:
    log = tmp_path / "out_train.txt"
    log.write_text("1 1 5.0 2.3 1\n")
    with pytest.raises(ValueError, match=f"^{log} has 1 epochs: at least 2 are needed$"):
        measure.after_first_epoch(log)


@pytest.mark.parametrize(("seconds", "status"), [(0.1, 0), (0.9, 1)])
def test_the_exit_status_says_whether_the_bounds_are_kept(
    measure: Any, seconds: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark"])
    with pytest.raises(SystemExit) as left:
        measure.main(lambda rounds, quick: [measure.Row("a row", seconds, None, 0.5)])
    assert left.value.code == status
    assert "a row" in capsys.readouterr().out


def test_several_sides_take_turns_and_each_figure_is_the_smallest(measure: Any) -> None:
    turns: list[str] = []
    figures = {
        "ours": iter([{"seconds": 2.0, "MB": 5.0}, {"seconds": 1.0, "MB": 6.0}]),
        "theirs": iter([{"seconds": 3.0}, {"seconds": 4.0}]),
    }

    def side(name: str) -> Any:
        def measured() -> dict[str, float]:
            turns.append(name)
            return next(figures[name])

        return measured

    found = measure.in_turns({name: side(name) for name in figures}, 2)
    assert turns == ["ours", "theirs", "theirs", "ours"]
    assert found == {"ours": {"seconds": 1.0, "MB": 5.0}, "theirs": {"seconds": 3.0}}
