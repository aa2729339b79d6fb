"""Folders of prepared samples: who uses one keeps it, who removes one leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rml_core.data.prepared_folders import Folder, Gone, folders, in_use, is_used, remove

HOUR = 3600.0


def made(path: Path, size: int = 5000, idle: float = HOUR) -> Path:
    path.mkdir(parents=True)
    (path / "inputs.npy").write_bytes(bytes(size))
    (path / "manifest.json").write_text("{}")
    used = time.time() - idle
    os.utime(path / "manifest.json", (used, used))
    return path


def listed(path: Path) -> Folder:
    (found,) = [folder for folder in folders(path.parent) if folder.path == path]
    return found


def test_folders_are_listed_by_their_last_use_with_what_they_take_on_disk(tmp_path: Path) -> None:
    young, old = made(tmp_path / "a", 1, idle=HOUR), made(tmp_path / "b", 50_000, idle=2 * HOUR)
    made(tmp_path / ".being-built-by-somebody")
    (tmp_path / "file").touch()
    found = folders(tmp_path)
    assert [folder.path for folder in found] == [old, young]
    on_disk = sum(file.stat().st_blocks * 512 for file in old.iterdir())
    assert found[0].size == on_disk >= 50_000
    assert time.time() - found[0].used == pytest.approx(2 * HOUR, abs=60)
    assert folders(tmp_path / "nowhere") == []


def test_what_is_used_is_not_removed_and_is_younger_then(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    before = listed(path)
    with in_use(path), in_use(path):
        assert is_used(before)
        assert not remove(listed(path))
        assert time.time() - listed(path).used < 60
    assert not is_used(before)
    # It was used since it was listed.
    assert not remove(before)
    assert remove(listed(path))
    assert list(tmp_path.iterdir()) == []


def test_what_is_gone_cannot_be_used(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    assert remove(listed(path))
    with pytest.raises(Gone), in_use(path):
        pass


def test_a_damaged_folder_is_removed(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    (path / "manifest.json").unlink()
    assert not is_used(listed(path))
    assert remove(listed(path))
    assert not path.exists()
    assert not remove(Folder(path, 0, 0.0))


USER = """
import sys
from pathlib import Path
from rml_core.data.prepared_folders import in_use
with in_use(Path(sys.argv[1])):
    print("used", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_uses_nothing(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    user = subprocess.Popen([sys.executable, "-c", USER, str(path)], **pipes)  # type: ignore[call-overload]
    try:
        assert user.stdout.readline() == b"used\n"
        assert is_used(listed(path))
        assert not remove(listed(path))
    finally:
        user.kill()
        user.communicate()
    assert remove(listed(path))
