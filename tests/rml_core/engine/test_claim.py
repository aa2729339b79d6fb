from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rml_core.config.problem import Refused
from rml_core.engine.claim import claimed

HOLDER = """
import sys
from pathlib import Path
from rml_core.engine.claim import claimed

with claimed([("place", Path(each)) for each in sys.argv[1:]]):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(*places: Path) -> subprocess.Popen[str]:
    """A process that holds `places` until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, *map(str, places)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=20)


def refusal(*places: tuple[str, Path]) -> str:
    return "\n".join(
        f"{where}: another run is writing to {place}\n    wait until it has ended, or give this run a place of its own"
        for where, place in places
    )


def test_a_place_is_held_by_one_process(tmp_path: Path):
    file, folder, free = tmp_path / "out_train.txt", tmp_path / "checkpoints", tmp_path / "free"
    file.touch()
    folder.mkdir()
    free.mkdir()
    process = hold(file, folder)
    try:
        with pytest.raises(Refused) as refused, claimed([("a", free), ("b", file), ("c", folder)]):
            pytest.fail("held twice")
        assert str(refused.value) == refusal(("b", file), ("c", folder))
        with claimed([("a", free)]):
            pass
    finally:
        let_go(process)
    with claimed([("a", free), ("b", file), ("c", folder)]):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", "free", "out_train.txt"]


def test_a_killed_process_holds_nothing(tmp_path: Path):
    process = hold(tmp_path)
    process.kill()
    process.communicate()
    with claimed([("a", tmp_path)]):
        pass


def test_one_folder_may_serve_for_two_things(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    before = len(os.listdir("/proc/self/fd"))
    with claimed([("a", tmp_path), ("b", tmp_path), ("c", tmp_path / "link")]):
        process = subprocess.run(
            [sys.executable, "-c", HOLDER, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert process.returncode == 1
        assert "another run is writing to" in process.stderr
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_what_stands_for_a_place_goes_with_its_run(tmp_path: Path, temporary: Path):
    place = ("a", tmp_path / "prediction.h5")
    with claimed([], [place, place]):
        (claim,) = temporary.iterdir()
        with pytest.raises(Refused) as refused, claimed([], [place]):
            pytest.fail("held twice")
        assert str(refused.value) == refusal(place)
        assert list(temporary.iterdir()) == [claim]
    assert list(temporary.iterdir()) == []
    # As a process that was killed leaves it.
    claim.touch()
    with claimed([], [place]):
        pass
    assert list(temporary.iterdir()) == []


def test_a_lock_on_what_is_removed_is_none(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch):
    """The holder ends between the opening and the locking by the next one."""
    place = ("a", tmp_path / "prediction.h5")
    holder = claimed([], [place])
    holder.__enter__()
    flock, opened = fcntl.flock, []

    def after_the_end(descriptor: int, how: int) -> None:
        opened.append(os.fstat(descriptor).st_nlink)
        if len(opened) == 1:
            holder.__exit__(None, None, None)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", after_the_end)
    with claimed([], [place]):
        assert len(opened) == 2
        with pytest.raises(Refused), claimed([], [place]):
            pytest.fail("held twice")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("outfile", "out_train.txt"),
        ("checkpoints.save", "checkpoints"),
        ("data.test_output_path", "predictions"),
    ],
)
def test_a_second_run_is_refused_and_harms_nothing(
    classification: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    key: str,
    place: str,
):
    classification["neural_network"]["num_epochs"] = 1
    file = run_file(classification)
    assert rml("run", file, "--untracked")[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    process = hold(tmp_path / place)
    try:
        text = f"{file}: 1 problem\n\n{refusal((f'neural_network.{key}', tmp_path / place))}\n"
        assert rml("run", file, "--untracked") == (2, "", text)
    finally:
        let_go(process)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
