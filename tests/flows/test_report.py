"""The picture of a run: for every kind of target, and where there is nothing to compare."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flows import report
from flows.phases import Outcome
from flows.places import Places
from rml_core.engine.gallery import Gallery
from rml_core.engine.log import LogFiles

RANDOM = np.random.default_rng(0)
HISTORY = [
    {"epoch": epoch, "train_loss": 1 / epoch, "test_loss": 1.2 / epoch, "accuracy": 1 - 0.5 / epoch}
    for epoch in range(1, 6)
]


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.random(shape).astype(np.float32)


def gallery(inputs: list[np.ndarray], outputs: list[np.ndarray], targets: list[np.ndarray] | None = None) -> Gallery:
    names = [f"{index}.png" for index in range(len(inputs))]
    return Gallery(len(inputs), inputs, outputs, targets or [], names)


GALLERIES: dict[str, tuple[Gallery, int]] = {
    "labels": (gallery([pixels(1, 8, 8)] * 32, [pixels(3)] * 32, [np.asarray(index % 3) for index in range(32)]), 4),
    "labels in colour": (gallery([pixels(3, 8, 8)] * 9, [pixels(3)] * 9, [np.asarray(1)] * 9), 2),
    "one output": (gallery([pixels(1, 8, 8)] * 2, [pixels(1)] * 2, [np.asarray(1), np.asarray(0)]), 1),
    "no labels": (gallery([pixels(1, 8, 8)] * 3, [pixels(3)] * 3), 1),
    "masks": (
        gallery([pixels(3, 8, 8)] * 5, [pixels(4, 8, 8)] * 5, [RANDOM.integers(-1, 4, (8, 8)) for _ in range(5)]),
        1,
    ),
    "masks, one channel": (gallery([pixels(1, 8, 8)] * 2, [pixels(1, 8, 8)] * 2, [np.ones((8, 8), np.int64)] * 2), 1),
    "values": (gallery([pixels(1, 8, 8)] * 9, [pixels(1, 8, 8)] * 9, [pixels(1, 8, 8)] * 9), 2),
    "values in colour": (gallery([pixels(3, 8, 8)] * 2, [pixels(3, 8, 8)] * 2, [pixels(3, 8, 8)] * 2), 1),
    "two channels": (gallery([pixels(2, 8, 8)] * 2, [pixels(2, 8, 8)] * 2, [pixels(2, 8, 8)] * 2), 1),
    "numbers": (gallery([pixels(1, 8, 8)] * 9, [pixels(5)] * 9, [pixels(5)] * 9), 2),
    "signals": (gallery([pixels(1, 8, 8)] * 2, [pixels(2, 16)] * 2, [pixels(2, 16)] * 2), 1),
    "volumes of pictures": (
        gallery([pixels(1, 8, 8)] * 2, [pixels(2, 4, 8, 8)] * 2, [np.ones((4, 8, 8), np.int64)] * 2),
        1,
    ),
    "volumes": (gallery([pixels(1, 4, 8, 8)] * 2, [pixels(2, 4, 8, 8)] * 2, [np.ones((4, 8, 8), np.int64)] * 2), 0),
    "another size": (gallery([pixels(1, 8, 8)] * 2, [pixels(1, 4, 6)] * 2), 1),
    "targets of another size": (gallery([pixels(1, 8, 8)] * 2, [pixels(1, 4, 4)] * 2, [pixels(1, 4, 4)] * 2), 1),
    "no pictures": (gallery([pixels(12)] * 2, [pixels(3)] * 2), 0),
    "no evaluation": (Gallery(), 0),
    "not finite": (gallery([np.full((1, 8, 8), np.nan, np.float32)], [np.full(2, np.nan)], [np.asarray(1)]), 1),
}


def opened(picture: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)


# Points that a row of samples takes: of three pictures, and of one with two lines above it.
THREE, LINES = 97, 148
HEIGHTS = {
    "numbers": 320 + 2 * LINES,
    "masks": 320 + 2 * THREE,
    "masks, one channel": 320 + THREE,
    "values": 320 + 3 * THREE,
    "values in colour": 320 + THREE,
    "two channels": 320 + THREE,
    "another size": 320 + 111,
    "targets of another size": 320 + THREE,
}


@pytest.mark.parametrize("kind", GALLERIES)
def test_draw(kind: str):
    """12 inches wide at 80 points an inch: 4 inches of curves, and 1.75 for each 8 samples of one picture."""
    samples, rows = GALLERIES[kind]
    picture = opened(report.draw(HISTORY, samples, ("cat", "dog", "horse")))
    assert picture.shape == (HEIGHTS.get(kind, 320 + 140 * rows), 960, 3)
    curves, sheet = picture[:320], picture[320:]
    assert curves.std() > 5
    assert rows == 0 or sheet.std() > 5


def test_an_epoch_is_a_tick(monkeypatch: pytest.MonkeyPatch):
    """As the figure has them, before it is a picture."""
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    report.draw(HISTORY[:1], Gallery(), ())
    report.draw([{**row, "accuracy": math.nan} for row in HISTORY[:3]], Gallery(), ())
    seen = []
    for axis in (axis for figure in figures for axis in figure.axes):
        left, right = axis.get_xlim()
        seen.append([tick for tick in axis.get_xticks() if left <= tick <= right])
    assert seen == [[1], [1], [1, 2, 3]]


def test_black_pictures_are_told_apart():
    """Each in a frame, with the page between them: from left to right, in the middle of the row."""
    black = np.zeros((1, 8, 8), np.float32)
    sheet = opened(report.draw([], gallery([black], [black], [black]), ()))[320:]
    line = sheet[60, :260, 0].astype(int)
    blacks = np.flatnonzero(np.diff((line < 20).astype(int)) == 1)
    assert len(blacks) == 3 or (len(blacks) == 2 and line[0] < 20)
    for left, right in itertools.pairwise(blacks):
        assert line[left:right].max() > 220


def test_right_is_green_and_wrong_is_red():
    def title(true: int) -> np.ndarray:
        samples = gallery([np.zeros((1, 8, 8), np.float32)], [np.asarray([0.1, 0.9])], [np.asarray(true)])
        return opened(report.draw([], samples, ("cat", "dog"))).astype(int)[320:]

    right, wrong = title(1), title(0)
    assert ((right[..., 1] - right[..., 2]) > 60).any()
    assert not ((right[..., 2] - right[..., 1]) > 60).any()
    assert ((wrong[..., 2] - wrong[..., 1]) > 60).any()


@pytest.mark.parametrize(("source", "colour"), [("sigmoid", 2), ("logits", 1)])
def test_half_a_probability_is_the_logit_0(source: str, colour: int):
    """0.3 of a sigmoid is the first class, a logit of 0.3 the second."""
    samples = gallery([np.zeros((1, 8, 8), np.float32)], [np.asarray([0.3])], [np.asarray(1)])
    sheet = opened(report.draw([], samples, ("cat", "dog"), source)).astype(int)[320:]
    assert ((sheet[..., colour] - sheet[..., 3 - colour]) > 60).any()


def test_a_class_has_one_shade():
    """Whatever classes a target or an output has, its shade is its share of the highest."""
    target = np.zeros((8, 8), np.int64)
    target[:, :4] = 1
    output = np.zeros((3, 8, 8), np.float32)
    output[1, :, :4] = output[2, :, 4:] = 1
    samples = gallery([np.zeros((1, 8, 8), np.float32)], [output], [target])
    sheet = opened(report.draw([], samples, ()))[320:]
    shades, counts = np.unique(sheet[..., 0], return_counts=True)
    # The first class and the input are black; the second is half bright in both, the third white as the page. Frames
    # are thin.
    flat = {int(shade) for shade, count in zip(shades, counts, strict=True) if count > 1000}
    assert flat == {0, 127, 255} or flat == {0, 128, 255}


def test_colours_are_not_swapped():
    """A network's three channels are BGR."""
    blue = np.zeros((3, 8, 8), np.float32)
    blue[0] = 1
    sheet = opened(report.draw([], gallery([blue], [np.asarray([1.0])]), ()))[320:].astype(int)
    assert ((sheet[..., 0] - sheet[..., 2]) > 200).sum() > 1000


@pytest.mark.parametrize(
    "history",
    [[], [{"epoch": 1, "test_loss": math.nan, "accuracy": math.nan}], [{"epoch": 1, "train_loss": 0.5}]],
    ids=["nothing", "no loss", "training only"],
)
def test_curves_of_whatever_there_is(history: list[dict[str, Any]]):
    assert opened(report.draw(history, Gallery(), ())).shape == (320, 960, 3)


def outcome(folder: Path) -> Outcome:
    logs = LogFiles.beside(folder / "out.txt")
    logs.train.write_text("1 1 0.1 0.5 0.1\n")
    logs.test.touch()
    return Outcome(
        HISTORY, GALLERIES["labels"][0], ("cat", "dog", "horse"), "softmax", Places(logs, None, None, None), 1.0
    )


def test_the_picture_lies_beside_the_logs(tmp_path: Path):
    picture = report.of(outcome(tmp_path))
    assert (tmp_path / "out_report.png").read_bytes() == picture
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out_report.png", "out_test.txt", "out_train.txt"]
