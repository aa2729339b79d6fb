"""A champion's folder: the pointer is always whole, and what a killed process left undone is done by the next one."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import champion
from flows.champion import CHAMPION, HISTORY, Champions, Round, point_to
from rml_core.config.problem import RunFailed, shown


class Killed(BaseException):
    """The process is gone: nothing of it is caught."""


def decided(champions: Champions, promoted: bool = True, content: str | None = None) -> Round:
    """A round that has come to its decision, whose checkpoint holds `content`."""
    made = champions.begin(f"run{len(champions.rounds())}")
    checkpoint = made.path / "checkpoints" / "model_checkpoint_1.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_text(content or f"weights of round {made.number}")
    row: dict[str, Any] = {"round": made.number, "promoted": promoted, "why": "..."}
    row["challenger"] = {"checkpoint": str(checkpoint.relative_to(champions.folder)), "value": float("nan")}
    made.decide(row)
    return made


@given(st.lists(st.booleans(), min_size=1, max_size=4), st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_a_kill_at_any_moment_leaves_a_whole_pointer_and_nothing_undone(rounds: list[bool], moment: int):
    """At any call to the system: what is there is the old or the new champion, and whoever comes next settles it."""
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        champions = Champions(Path(temporary))
        for promoted in rounds[:-1]:
            decided(champions, promoted)
            champions.settle()
        old = (champions.folder / CHAMPION).read_text() if champions.champion else None
        last = decided(champions, rounds[-1])
        new = f"weights of round {last.number}" if rounds[-1] else old
        left = moment

        def killing(function: Any) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    raise Killed
                return function(*arguments, **options)

            return call

        told: list[int] = []
        for name in ("link", "replace", "open", "fsync", "listdir"):
            patch.setattr(champion.os, name, killing(getattr(os, name)))
        with contextlib.suppress(Killed):
            champions.settle(lambda row: told.append(row["round"]))
        patch.undo()
        assert (champions.champion.read_text() if champions.champion else None) in (old, new)
        assert len(champions.history()) in (len(rounds) - 1, len(rounds))
        champions.settle(lambda row: told.append(row["round"]))
        assert (champions.champion.read_text() if champions.champion else None) == new
        assert [row["promoted"] for row in champions.history()] == rounds
        assert champions.settle() == []
        assert set(told) == ({last.number} if rounds[-1] else set())
        champions.prune(1, last)
        assert [each.number for each in champions.rounds()][-1] == last.number


def test_readers_see_the_old_or_the_new_champion_and_never_less(tmp_path: Path):
    size = 1 << 16
    contents = [bytes([index]) * size for index in range(6)]
    for index, content in enumerate(contents):
        (tmp_path / f"{index}.pt").write_bytes(content)
    pointer, seen, done = tmp_path / CHAMPION, set(), threading.Event()
    point_to(tmp_path / "0.pt", pointer)

    def look() -> None:
        while not done.is_set():
            seen.add(pointer.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for turn in range(100):
        point_to(tmp_path / f"{turn % 6}.pt", pointer)
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f"{index}.pt" for index in range(6)), CHAMPION]


def test_where_a_file_has_one_name_only_the_champion_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(champion.os, "link", refuse)
    (tmp_path / "a.pt").write_text("weights")
    point_to(tmp_path / "a.pt", tmp_path / CHAMPION)
    assert (tmp_path / CHAMPION).read_text() == "weights"
    assert not os.path.samefile(tmp_path / "a.pt", tmp_path / CHAMPION)
    with pytest.raises(
        RunFailed, match=rf"^{tmp_path}/{CHAMPION}: No such file or directory; the champion is who it was$"
    ):
        point_to(tmp_path / "b.pt", tmp_path / CHAMPION)
    assert (tmp_path / CHAMPION).read_text() == "weights"


def test_rounds_are_removed_but_for_the_newest_the_champions_and_the_last(tmp_path: Path):
    champions = Champions(tmp_path)
    for promoted in (True, False, True, False, False, False, False):
        last = decided(champions, promoted)
        champions.settle()
    unsaid = tmp_path / "rounds" / "0001" / "round.json"
    unsaid.unlink()
    assert champions.prune(2, last) == [1, 2, 4, 5]
    assert sorted(os.listdir(tmp_path / "rounds")) == ["0003", "0006", "0007"]
    assert champions.champion is not None
    assert champions.champion.read_text() == "weights of round 3"
    assert [row["round"] for row in champions.history()] == [1, 2, 3, 4, 5, 6, 7]
    assert champions.begin("another").number == 8


def test_a_number_that_json_has_no_word_for_is_null_and_a_damaged_history_is_named(tmp_path: Path):
    champions = Champions(tmp_path)
    decided(champions)
    champions.settle()
    assert json.loads((tmp_path / HISTORY).read_text())["challenger"]["value"] is None
    (tmp_path / HISTORY).write_text("{\n")
    with pytest.raises(RunFailed, match=r"history\.jsonl is damaged: .*; mend it, or move the folder away$"):
        champions.history()
    (tmp_path / HISTORY).write_bytes(b'{"why": "\xff"}\n')
    with pytest.raises(RunFailed) as failed:
        champions.history()
    assert str(failed.value) == (
        f"{tmp_path}/history.jsonl is damaged: 'utf-8' codec can't decode byte 0xff in position 9: invalid start byte; "
        "mend it, or move the folder away"
    )


def test_a_challenger_whose_checkpoint_is_not_there_becomes_no_champion(tmp_path: Path):
    champions, told = Champions(tmp_path), []
    decided(champions)
    champions.settle()
    (decided(champions).path / "checkpoints/model_checkpoint_1.pt").unlink()
    (row,) = champions.settle(told.append)
    assert (row["promoted"], row["lost"], told) == (False, True, [])
    assert row["why"] == "...; but its checkpoint rounds/0002/checkpoints/model_checkpoint_1.pt is gone"
    assert (tmp_path / CHAMPION).read_text() == "weights of round 1"
    assert champions.history()[-1] == json.loads(json.dumps(row).replace("NaN", "null"))


@pytest.mark.parametrize("named", ["/outside", "../outside", "rounds/0001/checkpoints/../../../../outside", 3])
def test_a_decision_that_names_another_file_is_not_carried_out(tmp_path: Path, named: Any):
    (tmp_path / "outside").write_text("secret")
    champions = Champions(tmp_path / "champion")
    made = decided(champions)
    named = str(tmp_path / "outside") if named == "/outside" else named
    made.decide({"round": 1, "promoted": True, "why": "...", "challenger": {"checkpoint": named}})
    assert champions.settle()[0]["why"] == f"...; but {shown(named)} is no checkpoint of the round"
    assert champions.champion is None


def test_a_checkpoint_or_a_round_that_leads_out_of_the_roots_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    champions = Champions(tmp_path / "champion")
    made = decided(champions)
    (tmp_path / "secret").write_text("secret")
    checkpoint = made.path / "checkpoints/model_checkpoint_1.pt"
    checkpoint.unlink()
    checkpoint.symlink_to(tmp_path / "secret")
    monkeypatch.setenv("RML_ROOTS", str(tmp_path / "champion"))
    with pytest.raises(RunFailed) as failed:
        champions.settle()
    assert str(failed.value) == (
        f"{tmp_path}/champion/{CHAMPION}: it leads to {tmp_path}/secret, which is not below {tmp_path}/champion "
        "(RML_ROOTS); the champion is who it was"
    )
    assert champions.champion is None
    with pytest.raises(RunFailed, match=rf"^{tmp_path}/a: it leads to {tmp_path}/a, which is not below "):
        champion.put(tmp_path / "a", "text")


@pytest.mark.parametrize("linked", ["rounds", "rounds/0001"])
def test_folders_of_rounds_that_are_links_are_refused_and_left_alone(tmp_path: Path, linked: str):
    outside = tmp_path / "outside"
    (outside / "0001").mkdir(parents=True)
    (outside / "0001" / "kept").write_text("kept")
    place = tmp_path / "champion" / linked
    place.parent.mkdir(parents=True)
    place.symlink_to(outside if linked == "rounds" else outside / "0001")
    with pytest.raises(RunFailed) as failed:
        Champions(tmp_path / "champion").begin("a")
    assert str(failed.value) == (
        f"{place} is a link, and rounds are removed with all that is in them: put a folder there"
    )
    assert (outside / "0001" / "kept").exists()


def test_a_history_that_leads_elsewhere_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "other.jsonl").write_text('{"round": 7}\n')
    champions = Champions(tmp_path / "champion")
    champions.folder.mkdir()
    (champions.folder / HISTORY).symlink_to(tmp_path / "other.jsonl")
    monkeypatch.setenv("RML_ROOTS", str(champions.folder))
    with pytest.raises(RunFailed, match=r"history\.jsonl: it leads to [^\n]*/other\.jsonl, which is not below"):
        champions.history()
