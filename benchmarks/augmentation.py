"""Augmenting pictures for training: flip, rotate, zoom, jitter crop, resize, normalise, 256 x 256 x 3.

Ours is the loader that feeds the training step, on preloaded pictures; the baseline is a loop around OpenCV's functions
in two threads that share each batch out. Both hand over float32 batches of 32, channels last in memory, each picture
with draws of its own. The baseline's zoom takes whole pixels (a crop and `cv2.resize`), which is cheaper than ours.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from measure import Row, compare, main
from pictures import classes, read
from rml_core.config.section import parse
from rml_core.data import Data
from rml_core.data.batches import batches
from rml_core.data.prepared import prepare
from rml_core.data.samples import Samples
from rml_core.data.survey import survey
from rml_core.engine.memory import keep_what_is_freed

SIZE, BATCH, THREADS, AHEAD = 256, 32, 2, 3
FLIP, ANGLE, ZOOM, CROP, MEAN, STD = 0.5, 20.0, 0.2, 0.2, 0.5, 0.25
# 0.9 of the baseline's images a second.
BOUND = 1 / 0.9

Batch = NDArray[np.float32]


def samples(folder: Path) -> Samples:
    """The pictures of `folder`, preloaded as a run file with these transforms does it."""
    transforms = [
        {"random_horizontal_flip": FLIP},
        {"random_rotate": ANGLE},
        {"random_zoom": ZOOM},
        {"jitter_crop": CROP},
        {"resize": [SIZE, SIZE]},
        {"normalize": {"mean": MEAN, "std": STD}},
    ]
    section: dict[str, Any] = {"input_type": "images", "target_type": "labels", "input_path": str(folder / "pictures")}
    data = parse(Data, {**section, "batch_size": BATCH, "preload": True, "transforms": transforms}, "")
    found = survey(data, "training", folder)
    assert found is not None
    return Samples(prepare(found, data, folder / "prepared"))


def product(ready: Samples, epochs: Iterator[int]) -> float:
    settings: dict[str, Any] = {"batch_size": BATCH, "seed": 0, "training": True, "shuffle": True, "threads": THREADS}
    began, count = time.perf_counter(), 0
    for batch in batches(ready, epoch=next(epochs), **settings):
        count += len(batch.inputs)
    seconds = time.perf_counter() - began
    assert count == ready.count
    return seconds


def augmented(picture: NDArray[np.uint8], rng: np.random.Generator, out: Batch) -> None:
    """One picture through OpenCV, function by function, into its place in the batch."""
    if rng.random() < FLIP:
        picture = cv2.flip(picture, 1)
    centre = ((SIZE - 1) / 2, (SIZE - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, rng.uniform(-ANGLE, ANGLE), 1)
    picture = cv2.warpAffine(picture, turn, (SIZE, SIZE))
    picture = cv2.resize(_cropped(picture, rng, ZOOM), (SIZE, SIZE))
    picture = cv2.resize(_cropped(picture, rng, CROP), (SIZE, SIZE))
    np.multiply(picture, np.float32(1 / (255 * STD)), out=out)
    np.subtract(out, np.float32(MEAN / STD), out=out)


def _cropped(picture: NDArray[np.uint8], rng: np.random.Generator, largest: float) -> NDArray[np.uint8]:
    top, left = (round(c * SIZE / 2) for c in rng.random(2) * largest)
    return picture[top : SIZE - top, left : SIZE - left]


def baseline(pictures: NDArray[np.uint8]) -> float:
    cv2.setNumThreads(0)
    generators = [np.random.default_rng(number) for number in range(THREADS)]
    order = generators[0].permutation(len(pictures))

    def fill(number: int, indices: NDArray[np.int64], out: Batch) -> None:
        for index, row in zip(indices, out, strict=True):
            augmented(pictures[index], generators[number], row)

    def begun(indices: NDArray[np.int64]) -> tuple[Batch, list[Future[None]]]:
        batch = np.empty((len(indices), SIZE, SIZE, 3), np.float32)
        parts = zip(np.array_split(indices, THREADS), np.array_split(batch, THREADS), strict=True)
        return batch, [pool.submit(fill, number, *part) for number, part in enumerate(parts)]

    began, count = time.perf_counter(), 0
    with ThreadPoolExecutor(THREADS) as pool:
        wanted = iter([order[at : at + BATCH] for at in range(0, len(order), BATCH)])
        ahead = deque(begun(indices) for indices in islice(wanted, AHEAD))
        while ahead:
            batch, parts = ahead.popleft()
            for part in parts:
                part.result()
            ahead.extend(begun(indices) for indices in islice(wanted, 1))
            count += len(batch)
    seconds = time.perf_counter() - began
    assert count == len(pictures)
    return seconds


def rows(rounds: int, quick: bool) -> list[Row]:
    keep_what_is_freed()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        classes(folder / "pictures", 2 * BATCH if quick else 16 * BATCH, SIZE, ".png", colour=True)
        ready = samples(folder)
        pictures = np.stack([picture for _, picture in read(folder / "pictures", colour=True)])
        name = f"augment, {BATCH} x {SIZE} x {SIZE} x 3, {THREADS} threads"
        epochs = iter(range(1, 1000))
        return [compare(name, partial(product, ready, epochs), partial(baseline, pictures), BOUND, rounds)]


if __name__ == "__main__":
    main(rows)
