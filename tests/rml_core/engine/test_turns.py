"""Turns at devices: between wishes in one process, which the kernel tells apart as it does those of two."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rml_core.config.problem import RunFailed
from rml_core.engine import turns
from rml_core.engine.turns import Turn


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "locks"
    monkeypatch.setenv("RML_LOCKS", str(folder))
    return folder


def turn(*devices: str, limit: int = 1, what: str = "a.json") -> Turn:
    return Turn(devices or ("gpu-0",), lambda device: limit, what)


def test_one_at_a_time_holds_a_device(locks: Path) -> None:
    first, second = turn(what="first.json"), turn()
    held = first.take()
    assert held is not None
    assert held.device == "gpu-0"
    assert second.take() is None
    (holder,) = second.holders()
    assert (holder.device, holder.what, holder.process) == ("gpu-0", "first.json", os.getpid())
    assert time.time() - 60 < holder.since <= time.time()
    held.release()
    assert second.holders() == []
    taken = second.take()
    assert taken is not None
    taken.release()
    assert sorted(path.name for path in locks.iterdir()) == ["deciding", "gpu-0.0"]


def test_the_folder_of_locks_is_for_all_users(locks: Path) -> None:
    held = turn().take()
    assert held is not None
    held.release()
    assert locks.stat().st_mode & 0o7777 == 0o1777
    assert {path.stat().st_mode & 0o777 for path in locks.iterdir()} == {0o666}


def test_as_many_hold_a_device_as_its_limit_says() -> None:
    held = [turn(limit=2).take() for _ in range(3)]
    assert [each is not None for each in held] == [True, True, False]
    assert turn(limit=1).take() is None
    assert len(turn().holders()) == 2


def test_a_limit_of_none_lets_nobody_in() -> None:
    assert turn(limit=0).take() is None


def test_any_free_device_is_taken_and_a_named_one_is_waited_for() -> None:
    first, second, third = turn("gpu-0", "gpu-1"), turn("gpu-0", "gpu-1"), turn("gpu-1")
    one, other = first.take(), second.take()
    assert one is not None
    assert other is not None
    assert (one.device, other.device) == ("gpu-0", "gpu-1")
    assert third.take() is None
    one.release()
    assert third.take() is None
    other.release()
    assert third.take() is not None


def test_who_came_first_is_served_first() -> None:
    held = turn().take()
    second, third = turn(), turn()
    assert held is not None
    assert second.take() is None
    assert third.take() is None
    held.release()
    assert third.take() is None
    assert turn().take() is None
    assert second.take() is not None


def test_who_waits_for_another_device_is_in_nobody_s_way() -> None:
    assert turn("gpu-1").take() is not None
    assert turn("gpu-1").take() is None
    assert turn("gpu-0", "gpu-1").take() is not None


def test_who_has_given_up_is_not_waited_for(locks: Path) -> None:
    held, second, third = turn().take(), turn(), turn()
    assert held is not None
    assert second.take() is None
    assert third.take() is None
    second.give_up()
    held.release()
    assert third.take() is not None
    assert list(locks.glob("waits.*")) == []


def test_who_is_stopped_while_he_waits_is_passed_over(locks: Path) -> None:
    held, second, third = turn().take(), turn(), turn()
    assert held is not None
    assert second.take() is None
    assert third.take() is None
    held.release()
    assert third.take() is None
    (stopped, _) = sorted(locks.glob("waits.*"))
    os.utime(stopped, (0, time.time() - turns.SILENT_S - 1))
    assert third.take() is not None


# Takes a device, or waits for one, says so, and stays.
OTHER = """
import sys
from rml_core.engine.turns import Turn
turn = Turn(["gpu-0"], lambda device: 1, "other.json")
print(turn.take() is not None, flush=True)
sys.stdin.read()
"""


def test_killed_ones_neither_hold_nor_wait(locks: Path) -> None:
    others = []
    try:
        for expected in (b"True\n", b"False\n"):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            others.append(subprocess.Popen([sys.executable, "-c", OTHER], **pipes))  # type: ignore[call-overload]
            assert others[-1].stdout.readline() == expected
        mine = turn()
        assert mine.take() is None
        (holder,) = mine.holders()
        assert (holder.what, holder.process) == ("other.json", others[0].pid)
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert mine.take() is not None
    assert list(locks.glob("waits.*")) == []


def test_a_place_that_cannot_be_read_is_held_all_the_same(locks: Path) -> None:
    assert turn().take() is not None
    (locks / "gpu-0.0").write_text("{")
    (holder,) = turn().holders()
    assert (holder.what, holder.process) == ("another run", 0)
    assert turn().take() is None


def test_nobody_decides_while_another_does(locks: Path) -> None:
    held = turn().take()
    assert held is not None
    held.release()
    with turns._alone(locks / "deciding") as decides:
        assert decides
        assert turn().take() is None
    assert turn().take() is not None


def test_a_folder_that_cannot_be_locked_in_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RML_LOCKS", str(tmp_path / "file" / "locks"))
    with pytest.raises(RunFailed) as failed:
        turn().take()
    assert str(failed.value) == (
        f"devices cannot be locked in {tmp_path}/file/locks: Not a directory; set RML_LOCKS to a folder that all who "
        "share the devices can write to"
    )
