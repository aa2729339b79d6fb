"""What is being built is gone when it is not built any more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rml_core.data import building
from rml_core.data.building import built_beside

KILLED = """
import os, signal, sys
from pathlib import Path
from rml_core.data.building import built_beside
with built_beside(Path(sys.argv[1])) as folder:
    (folder / "volume.npy").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_gone_at_the_end_unless_it_was_renamed(tmp_path):
    with built_beside(tmp_path / "a" / "training-1") as folder:
        (folder / "x").touch()
    assert os.listdir(tmp_path / "a") == []
    with built_beside(tmp_path / "a" / "training-1") as folder:
        (folder / "x").touch()
        os.rename(folder, tmp_path / "a" / "training-1")
    assert os.listdir(tmp_path / "a") == ["training-1"]
    assert os.listdir(tmp_path / "a" / "training-1") == ["x"]


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), built_beside(tmp_path / "training-1"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_has_left_is_removed_by_the_next(tmp_path):
    """Of other data too; what is being built stays, and what is done."""
    (tmp_path / "training-2").mkdir()
    with built_beside(tmp_path / "training-3") as other:
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "training-1")], check=False)
        left = set(os.listdir(tmp_path)) - {"training-2", other.name}
        assert len(left) == 1
        with built_beside(tmp_path / "test-4") as folder:
            assert set(os.listdir(tmp_path)) == {"training-2", other.name, folder.name}


def test_other_machines_have_a_day(tmp_path, monkeypatch):
    monkeypatch.setattr(building.platform, "node", lambda: "another")
    folders = [tmp_path / f".training-1-{building._host()}-{number}" for number in range(2)]
    for folder in folders:
        folder.mkdir()
    os.utime(folders[1], (0, 0))
    monkeypatch.undo()
    with built_beside(tmp_path / "training-1") as folder:
        assert set(os.listdir(tmp_path)) == {folder.name, folders[0].name}


def test_what_is_swept_is_locked_until_it_is_gone(tmp_path, monkeypatch):
    """Who has made a folder a moment ago and comes to lock it has either a whole one, or sees that it is gone."""
    left = Path(tempfile.mkdtemp(prefix=f".a-b-{building._host()}-", dir=tmp_path))
    seen = []

    def remove(folder: Path, ignore_errors: bool) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        seen.append(building._locks(descriptor))
        os.close(descriptor)

    monkeypatch.setattr(shutil, "rmtree", remove)
    building.sweep(tmp_path)
    assert (seen, left.exists()) == ([False], True)
