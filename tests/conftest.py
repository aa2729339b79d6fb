"""Small real files and run files for the tests of whole runs."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

# The networks of the tests are small: threads, of which other tests may want some too, cost more than they give.
# Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# Where the tests themselves were started to ignore Ctrl-C, they and the commands they start would ignore it too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared samples of a test are its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def write_pictures(folder: Path, each: int, seed: int, size: int = 12) -> None:
    """Two classes: `dark` has its bright square on the left, `light` on the right."""
    random = np.random.default_rng(seed)
    for label, column in (("left", 1), ("right", 7)):
        (folder / label).mkdir(parents=True)
        for index in range(each):
            picture = random.integers(0, 80, (size, size), dtype=np.uint8)
            row = int(random.integers(1, 7))
            picture[row : row + 4, column : column + 4] = 200
            cv2.imwrite(str(folder / label / f"img{index}.png"), picture)


LAYERS: list[dict[str, Any]] = [
    {
        "class_name": "Conv2D",
        "config": {"name": "conv", "filters": 4, "kernel_size": 3, "padding": "same", "activation": "relu"},
    },
    {"class_name": "MaxPooling2D", "config": {"name": "pool", "pool_size": 2}},
    {"class_name": "Dropout", "config": {"name": "drop", "rate": 0.2}},
    {"class_name": "Flatten", "config": {"name": "flat"}},
    {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "log_softmax"}},
]

CLASSIFICATION: dict[str, Any] = {
    "outfile": "out.txt",
    "num_epochs": 3,
    "layers": LAYERS,
    "data": {
        "input_type": "images",
        "target_type": "labels",
        "input_path": "train",
        "test_input_path": "test",
        "test_output_path": "predictions",
        "batch_size": 4,
        "test_batch_size": 8,
        "grayscale": True,
        "preload": True,
        "transforms": [{"random_horizontal_flip": 0.1}, {"normalize": {"mean": 0.3, "std": 0.5}}],
    },
    "optimizer": {
        "type": "Adam",
        "learning_rate": 0.01,
        "lr_scheduler": {"type": "Exponential", "gamma": 0.9},
    },
    "loss": {"function": "NLL"},
    "checkpoints": {"save": "checkpoints"},
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `train` (24 pictures) and `test` (10), two classes each. Not to be written to."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder / "train", 12, seed=1)
    write_pictures(folder / "test", 5, seed=2)
    return folder


@pytest.fixture
def classification(pictures: Path) -> dict[str, Any]:
    """A run file that trains on `pictures`; what it writes goes below its own folder."""
    section = copy.deepcopy(CLASSIFICATION)
    section["data"]["input_path"] = str(pictures / "train")
    section["data"]["test_input_path"] = str(pictures / "test")
    return {"neural_network": section}


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run file into the test's own folder."""

    def write(mapping: object, name: str = "run.json") -> Path:
        path = tmp_path / name
        path.write_text(mapping if isinstance(mapping, str) else json.dumps(mapping))
        return path

    return write


@pytest.fixture
def rml(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls the command `rml` in this process: (exit status, standard output, standard error)."""

    def call(*arguments: object, command: str = "main") -> tuple[int, str, str]:
        from flows import cli

        monkeypatch.setattr(sys, "argv", ["rml", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            getattr(cli, command)()
        output, errors = capsys.readouterr()
        return int(ended.value.code or 0), output, errors

    return call
