"""What volumes are measured with: the sides do the same work, and memory is that of the process."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SIDES = FOLDER / "sides"


@pytest.fixture
def volumes() -> Any:
    return importlib.import_module("volumes")


def told(program: str, *arguments: object) -> dict[str, float]:
    command = [sys.executable, str(SIDES / program), *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


@pytest.mark.slow
def test_monai_and_the_run_give_the_same_numbers(volumes: Any, tmp_path: Path) -> None:
    source = volumes.volume(tmp_path / "volume.h5", 20)
    path = volumes.run_file(tmp_path / "run.json", source, volumes.one_layer(volumes.NETWORKS["mean"], 8), 20, 8)
    assert set(told("run_file.py", path, path)) == {"seconds", "MB", "whole"}
    assert set(told("windows_monai.py", source, source, tmp_path / "theirs.h5", "mean", 8)) == {"seconds", "MB"}
    with h5py.File(volumes.prediction(path)) as ours, h5py.File(tmp_path / "theirs.h5") as theirs:
        assert ours["windows"].shape == theirs["windows"].shape == (1, 20, 20, 20)
        # Of 20 voxels, windows of 8 that overlap by half leave none for the last one to be moved.
        np.testing.assert_allclose(ours["windows"], theirs["windows"], atol=1e-6)


def test_the_most_memory_is_seen_while_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SIDES))
    held = importlib.import_module("held")
    size = 64 << 20

    with held.Watched() as watched:
        array = np.ones(size, np.uint8)
    del array
    assert 0.9 * size < watched.most < 2 * size
    figures = held.measured(lambda: None)
    assert figures["MB"] < 10
    assert figures["seconds"] < 1


def test_lines_of_windows(volumes: Any) -> None:
    assert [volumes.line(size, 64) for size in (64, 96, 512, 1024)] == [1, 2, 15, 31]


def test_without_the_peers_it_says_what_makes_them(
    volumes: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(volumes, "PEERS", tmp_path / "python")
    with pytest.raises(SystemExit) as stopped:
        volumes.peers_python(quick=False)
    assert str(stopped.value) == f"{tmp_path / 'python'} is not there: make peers"
    assert volumes.peers_python(quick=True) == sys.executable
