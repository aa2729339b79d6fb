"""Disks that are full: one line, and what was whole stays whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

Rml = Callable[..., tuple[int, str, str]]


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the files below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unfinished(folder: Path) -> list[str]:
    """Hidden files: what was not finished has such a name. (The note of a folder's latest run is whole.)"""
    return [path.name for path in folder.rglob(".*") if path.name != ".latest_run.json"]


def test_a_full_disk_while_a_checkpoint_is_written(own: dict[str, Any], run: Rml, tmp_path: Path):
    assert run(own)[0] == 0
    folder = tmp_path / "checkpoints"
    before = contents(folder)
    own |= {"num_epochs": 3}
    del own["outfile"], own["data"]["test_output_path"]
    status, _, errors = run(own, "--resume", "auto", room=10_000)
    path = folder / "model_checkpoint_2.pt"
    assert (status, errors) == (
        1,
        f"checkpoint epoch 2: {path}: File too large; the earlier checkpoints are whole\n",
    )
    assert contents(folder) == before
    own["outfile"] = "out.txt"
    assert run(own, "--resume", "auto")[0] == 0
    assert sorted(path.name for path in folder.glob("*.pt")) == [f"model_checkpoint_{n}.pt" for n in (1, 2, 3)]


def test_a_full_disk_while_logs_are_written(own: dict[str, Any], run: Rml, tmp_path: Path):
    own["data"]["preload"] = False
    del own["checkpoints"], own["data"]["test_output_path"]
    assert run(own)[0] == 0
    own["num_epochs"] = 3
    status, _, errors = run(own, room=300)
    assert (status, errors) == (1, f"evaluate epoch 1: {tmp_path}/out_metrics.jsonl: File too large\n")
    assert (tmp_path / "out_metrics.jsonl").read_bytes() == b""
    assert [line.split()[:2] for line in (tmp_path / "out_train.txt").read_text().splitlines()] == [
        ["1", str(batch)] for batch in range(1, 7)
    ]
    assert run(own, room=30)[::2] == (1, f"train epoch 1: {tmp_path}/out_train.txt: File too large\n")
    assert (tmp_path / "out_train.txt").read_bytes() == b""


@pytest.mark.parametrize("room", [700, 3000], ids=["in the middle", "at the end"])
def test_a_full_disk_while_predictions_are_written(own: dict[str, Any], run: Rml, room: int, tmp_path: Path):
    del own["checkpoints"], own["outfile"]
    assert run(own)[0] == 0
    path = tmp_path / "predictions" / "output_1.h5"
    before = contents(tmp_path)
    assert run(own, room=room)[::2] == (1, f"evaluate epoch 1: {path}: File too large\n")
    assert contents(tmp_path) == before


def test_a_full_disk_while_samples_are_prepared(own: dict[str, Any], run: Rml, tmp_path: Path):
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "rml" / "prepared"
    assert run(own, room=2000) == (
        1,
        "",
        f"load training: samples cannot be prepared in {folder}: File too large; make room there, or set "
        "XDG_CACHE_HOME to another folder\n",
    )
    assert list(folder.iterdir()) == []


def test_a_full_disk_while_a_volume_is_prepared(own: dict[str, Any], run: Rml, tmp_path: Path):
    """Its room is taken before the first chunk is decoded."""
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "rml" / "prepared"
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("x", data=np.zeros((20, 20, 20), "f4"), chunks=(8, 8, 8), compression="gzip")
    section = {
        "layers": [{"class_name": "Activation", "config": {"activation": "linear"}}],
        "data": {"type": "hdf5", "test_input_path": "v.h5:/x", "preload": True, "slicers": [{"sizes": [8, 8, 8]}]},
    }
    assert run(section, room=20000) == (
        1,
        "",
        f"load test: samples cannot be prepared in {folder}: File too large; make room there, or set XDG_CACHE_HOME to "
        "another folder\n",
    )
    assert list(folder.iterdir()) == []


def test_a_full_disk_while_the_picture_is_written(own: dict[str, Any], run: Rml, tmp_path: Path):
    del own["checkpoints"], own["data"]["test_output_path"]
    assert run(own)[0] == 0
    before = (tmp_path / "out_report.png").read_bytes()
    status, _, errors = run(own, room=16_000)
    path = tmp_path / "out_report.png"
    assert (status, errors) == (1, f"{path}: File too large; all else that the run writes is there\n")
    assert path.read_bytes() == before
    assert unfinished(tmp_path) == []
