"""Small real image files, and the way from a section to its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rml_core.config.section import parse
from rml_core.data import Data
from rml_core.data.batches import Batch, batches
from rml_core.data.prepared import Prepared, prepare
from rml_core.data.samples import Samples
from rml_core.data.shapes import Takes
from rml_core.data.slices import Slices
from rml_core.data.survey import Survey, survey


@dataclass(frozen=True)
class Workplace:
    """A folder with images, and run files' data sections against it."""

    folder: Path
    saver: Callable[[str, Path, dict[str, Any]], None]

    def write(self, name: str, height: int = 6, width: int = 8, channels: int = 3, dtype: str = "uint8") -> np.ndarray:
        """An image of noise at `name`, and its pixels."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(sum(name.encode()))
        array = rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
        assert cv2.imwrite(str(path), array)
        return array

    def mask(self, name: str, values: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.asarray(values, np.uint8))

    def two_classes(self, count: int = 5, folder: str = "in") -> None:
        for kind in ("cats", "dogs"):
            for i in range(count):
                self.write(f"{folder}/{kind}/{i}.png")

    def section(self, **keys: Any) -> Data:
        kind = {} if "type" in keys else {"input_type": "images"}
        return parse(Data, {**kind, **keys}, "neural_network.data")

    def survey(
        self, role: str = "training", classes: tuple[str, ...] | None = None, takes: Takes | None = None, **keys: Any
    ) -> Survey:
        found = survey(self.section(**keys), role, self.folder, classes, takes=takes)
        assert found is not None
        return found

    def prepare(self, role: str = "training", takes: Takes | None = None, **keys: Any) -> Prepared:
        return prepare(self.survey(role, takes=takes, **keys), self.section(**keys), self.folder / "prepared")

    def batches(self, training: bool = True, threads: int = 2, mapped: Any = None, **keys: Any) -> list[Batch]:
        order = {k: keys.pop(k) for k in ("start", "rank", "world_size", "epoch", "seed") if k in keys}
        prepared = self.prepare(**keys)
        settings = {"epoch": 1, "seed": 0, "shuffle": True, **order}
        samples = Slices(prepared, mapped, cache_bytes=1 << 22) if prepared.grids else Samples(prepared, mapped)
        return list(batches(samples, batch_size=prepared.batch_size, training=training, threads=threads, **settings))

    def save(self, kind: str, name: str, arrays: dict[str, Any]) -> str:
        """`arrays` by their names in a file of `kind` (of npy: a file each below the folder `name`); gives its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.saver(kind, path, arrays)
        return name


@pytest.fixture
def work(tmp_path: Path, save_arrays: Callable[[str, Path, dict[str, Any]], None]) -> Workplace:
    return Workplace(tmp_path, save_arrays)
