"""Run files to be broken, and what is asked of a refusal: the whole message, the exit status, nothing lost."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Rml = Callable[..., tuple[int, str, str]]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes: what a full disk is to who writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def own(classification: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The section of a run file whose pictures lie in the test's own folder, to be damaged; one epoch."""
    section: dict[str, Any] = classification["neural_network"]
    for key, name in (("input_path", "train"), ("test_input_path", "test")):
        shutil.copytree(section["data"][key], tmp_path / name)
        section["data"][key] = name
    section["num_epochs"] = 1
    return section


@pytest.fixture
def masks(tmp_path: Path) -> dict[str, Any]:
    """The section of a run file that finds the bright pixels of 8 pictures, in the test's own folder."""
    random = np.random.default_rng(5)
    for role, count in (("", 8), ("test_", 4)):
        for kind in ("inputs", "masks"):
            (tmp_path / f"{role}{kind}").mkdir()
        for index in range(count):
            picture = random.integers(0, 255, (12, 12), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / f"{role}inputs" / f"{index}.png"), picture)
            cv2.imwrite(str(tmp_path / f"{role}masks" / f"{index}.png"), (picture > 128).astype(np.uint8) * 255)
    layer = {"filters": 1, "kernel_size": 3, "padding": "same", "activation": "sigmoid"}
    return {
        "outfile": "out.txt",
        "layers": [{"class_name": "Conv2D", "config": {"name": "conv", **layer}}],
        "data": {
            "type": "images",
            "input_path": "inputs",
            "target_path": "masks",
            "test_input_path": "test_inputs",
            "test_target_path": "test_masks",
            "grayscale": True,
            "target_is_mask": True,
            "batch_size": 4,
            "test_batch_size": 4,
        },
        "optimizer": {"type": "SGD", "learning_rate": 0.1},
        "loss": {"function": "Dice"},
    }


@pytest.fixture
def run(rml: Rml, run_file: Callable[..., Path]) -> Callable[..., tuple[int, str, str]]:
    """Runs a section, untracked: (exit status, standard output, standard error)."""

    def call(section: dict[str, Any], *arguments: object, room: int | None = None) -> tuple[int, str, str]:
        file = run_file({"neural_network": section})
        with room_for(room) if room is not None else nullcontext():
            return rml("run", file, "--untracked", *arguments)

    return call


@pytest.fixture
def refuses(run: Rml, tmp_path: Path) -> Callable[..., None]:
    """Asserts that a run is refused before any work, with exactly these problems, and that it leaves nothing."""

    def check(section: dict[str, Any], *problems: str, arguments: tuple[object, ...] = (), output: str = "") -> None:
        before = contents(tmp_path)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        expected = f"{tmp_path}/run.json: {count}\n\n" + "".join(f"{problem}\n" for problem in problems)
        assert run(section, *arguments) == (2, output, expected)
        before["run.json"] = (tmp_path / "run.json").read_bytes()
        assert contents(tmp_path) == before

    return check


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the files below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
