"""Pictures for the benchmarks to train on, drawn from a fixed seed into a folder that the caller removes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
KINDS = ("discs", "squares")


def classes(folder: Path, count: int, size: int, suffix: str, colour: bool) -> None:
    """`count` pictures of discs or squares on noise, `<folder>/<kind>/<number><suffix>`."""
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        picture, _ = _draw(rng, size, kind, 3 if colour else 1)
        _write(folder / kind / f"{number:05}{suffix}", picture)


def regions(inputs: Path, masks: Path, count: int, size: int) -> None:
    """`count` grey pictures of discs, and the discs as masks of 0 and 1, as PNG files of the same names."""
    inputs.mkdir(parents=True)
    masks.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        picture, mask = _draw(rng, size, "discs", 1)
        _write(inputs / f"{number:05}.png", picture)
        _write(masks / f"{number:05}.png", mask)


def read(folder: Path, colour: bool) -> Iterator[tuple[Path, Picture]]:
    """Every picture below `folder` in sorted order; (H, W), or (H, W, 3) in OpenCV's BGR."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield path, decoded(path, colour)


def decoded(path: Path, colour: bool) -> Picture:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise OSError(f"{path} does not decode")
    return np.asarray(picture, np.uint8)


def _draw(rng: np.random.Generator, size: int, kind: str, channels: int) -> tuple[Picture, Picture]:
    mask = np.zeros((size, size), np.uint8)
    for _ in range(5):
        x, y = (int(v) for v in rng.integers(size // 8, size - size // 8, 2))
        radius = int(rng.integers(max(size // 16, 2), max(size // 8, 3)))
        if kind == "discs":
            cv2.circle(mask, (x, y), radius, 1, -1)
        else:
            cv2.rectangle(mask, (x - radius, y - radius), (x + radius, y + radius), 1, -1)
    noise = cv2.GaussianBlur(rng.normal(90, 60, (size, size, channels)), (0, 0), 1)
    picture = noise.reshape(size, size, channels) + 80 * mask[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8).squeeze(), mask


def _write(path: Path, picture: Picture) -> None:
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"{path} could not be written")
