"""The picture of sections: it can be drawn for all there is to see, and its colours say what they should."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np
import pytest

from flows import sections_picture
from flows.cross_sections import Cut, Section, SetSections
from flows.sections_picture import draw

RANDOM = np.random.default_rng(0)


def made(
    name: str = "bricks",
    *,
    shape: tuple[int, ...] = (30, 40),
    count: int = 3,
    classes: int | None = None,
    targets: bool = True,
    step: int = 1,
    gaps: bool = False,
) -> SetSections:
    """`count` sections of `shape`, of random numbers."""

    def numbers() -> np.ndarray:
        found = RANDOM.random(shape) if classes is None else RANDOM.integers(0, classes, shape)
        return found.astype(np.float32)

    sections = []
    rank = 3 if count > 1 else len(shape)
    for axis in range(count):
        prediction, target = numbers(), numbers()
        if gaps:
            prediction[::3] = np.nan
        error = prediction - target
        if classes is not None:
            error = np.where(np.isnan(error), np.nan, error != 0)
        seen = (target, error) if targets else (None, None)
        cut = Cut(axis if rank == 3 else None, 5, rank)
        sections.append(Section(cut, (step,) * len(shape), numbers(), seen[0], prediction, seen[1]))
    return SetSections(name, (classes or 1, *(20,) * rank), tuple(sections), {"input": "channel 0 of 2"})


def pixels(png: bytes) -> np.ndarray:
    """(H, W, 3), RGB."""
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize(
    ("sets", "classes"),
    [
        ([made(count=2, gaps=True), made("xz-slices", count=2, step=7)], None),
        ([made(targets=False)], None),
        ([made(count=1)], None),
        ([made(count=1, shape=(200,))], None),
        ([made(count=1, shape=(200,), classes=3, gaps=True)], 3),
        ([made(count=2, classes=2, targets=False), made("flat", count=2, shape=(4, 400), classes=2)], 2),
        ([made(count=1, classes=17, gaps=True)], 17),
        ([made(count=1, classes=40)], 40),
        ([made(count=1, shape=(1, 1))], None),
    ],
)
def test_whatever_there_is_can_be_drawn(sets: list[SetSections], classes: int | None):
    picture = pixels(draw(sets, classes, ["background", "grey matter"]))
    assert picture.shape[1] <= sections_picture.DPI * 14
    assert picture.std() > 5


def test_nothing_but_nan_can_be_drawn():
    nothing = np.full((10, 10), np.nan, np.float32)
    section = Section(Cut(None, 0, 2), (1, 1), nothing, nothing, nothing, nothing)
    for classes in (None, 2):
        assert pixels(draw([SetSections("empty", (1, 10, 10), (section,), {})], classes)).any()


def test_classes_have_the_same_colour_in_target_and_prediction_and_what_is_wrong_is_red():
    target = np.zeros((20, 20), np.float32)
    target[:, 10:] = 1
    prediction = target.copy()
    prediction[:10, :10] = 1
    inputs = np.broadcast_to(np.linspace(0, 1, 20, dtype=np.float32), (20, 20))
    section = Section(Cut(None, 0, 2), (1, 1), inputs, target, prediction, (prediction != target).astype(np.float32))
    picture = pixels(draw([SetSections("tiles", (2, 20, 20), (section,), {})], 2))

    def columns(colour: str | tuple[float, ...]) -> np.ndarray:
        """How many pixels have it, in each column of the page."""
        wanted = np.round(np.asarray(matplotlib.colors.to_rgb(colour)) * 255)
        return (np.abs(picture - wanted) <= 1).all(-1).sum(0)

    first, second = sections_picture._colours(2)
    blue, dark, red = columns(second[:3]), columns(first[:3]), columns(sections_picture.WRONG)
    # Of the target a half is dark and a half blue, of the prediction a fourth and three fourths; a fourth is wrong.
    assert blue.sum() / dark.sum() == pytest.approx(1.25 / 0.75, rel=0.05)
    assert red.sum() / dark.sum() == pytest.approx(0.25 / 0.75, rel=0.05)
    # Pictures are areas; what says that a colour means a class is small.
    assert np.flatnonzero(red > 60)[0] > np.flatnonzero(blue > 60)[-1]


def test_gaps_are_grey():
    prediction = np.ones((20, 20), np.float32)
    prediction[:, :10] = np.nan
    section = Section(Cut(None, 0, 2), (1, 1), np.zeros((20, 20), np.float32), None, prediction, None)
    picture = pixels(draw([SetSections("tiles", (1, 20, 20), (section,), {})]))
    grey = (np.abs(picture - round(float(sections_picture.NOTHING) * 255)) <= 1).all(-1)
    half = picture.shape[1] // 2
    assert grey[:, :half].sum() < 1000 < grey[:, half:].sum()
