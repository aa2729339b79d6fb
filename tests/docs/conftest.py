"""What the examples of the pages stand in: a complete run file, and a folder with pictures."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rml_core.check import check_without_data
from rml_core.run import read

WHOLE: dict[str, Any] = {
    "layers": [
        {"class_name": "GlobalAveragePooling2D", "config": {}},
        {"class_name": "Dense", "config": {"units": 2, "activation": "log_softmax"}},
    ],
    "data": {
        "input_type": "images",
        "target_type": "labels",
        "input_path": "pictures/train",
        "test_input_path": "pictures/test",
        "transforms": [{"resize": [64, 64]}],
    },
    "optimizer": {"type": "SGD"},
    "loss": {"function": "NLL"},
}


@pytest.fixture
def valid() -> Callable[[dict[str, Any]], None]:
    """Puts a part of a run file into a whole one, and validates that. A section that says its own type is whole."""

    def check(part: dict[str, Any]) -> None:
        whole = copy.deepcopy(WHOLE)
        for key, value in part.items():
            merges = (
                isinstance(value, dict)
                and isinstance(whole.get(key), dict)
                and len({"type", "function"} & value.keys()) == 0
            )
            whole[key] = {**whole[key], **value} if merges else value
        check_without_data(read({"neural_network": json.loads(json.dumps(whole))}))

    return check


def _write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader of the pages works: `pictures` in class folders, `new` ones, `scans` with masks, `birds`."""
    folder = tmp_path_factory.mktemp("reader")
    random = np.random.default_rng(0)

    def picture(brightness: int) -> np.ndarray:
        noise = random.integers(0, 60, (int(random.integers(30, 50)), 40, 3))
        return (noise + brightness).astype(np.uint8)

    for part, count in (("train", 16), ("test", 6)):
        for index in range(count):
            _write(folder / "pictures" / part / "cats" / f"{index}.jpg", picture(20))
            _write(folder / "pictures" / part / "dogs" / f"{index}.jpg", picture(180))
            if index < count // 2:
                for kind, brightness in (("robin", 20), ("tit", 100), ("wren", 180)):
                    _write(folder / "birds" / part / kind / f"{index}.jpg", picture(brightness))
    for index in range(4):
        _write(folder / "new" / f"{index}.jpg", picture(180))
    for part, count in (("train", 8), ("test", 4)):
        for index in range(count):
            mask = np.zeros((32, 32), np.uint8)
            row, column = random.integers(2, 18, 2)
            mask[row : row + 12, column : column + 12] = 255
            scan = (mask // 2 + random.integers(0, 60, mask.shape)).astype(np.uint8)
            _write(folder / "scans" / part / "images" / f"{index}.png", scan)
            _write(folder / "scans" / part / "masks" / f"{index}.png", mask)
    return folder
