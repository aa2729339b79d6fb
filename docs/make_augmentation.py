"""Write `augmentation.png`: one picture through each transform, as a run file would have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rml_core.config.seed import generator
from rml_core.transforms import TRANSFORMS
from rml_core.transforms.floats import as_float

SHEET = Path(__file__).with_name("augmentation.png")
SIZE, MARGIN, TEXT, COLUMNS = 144, 12, 22, 5

EXAMPLES: dict[str, Any] = {
    "resize": [72, 108],
    "center_crop": [96, 96],
    "jitter_crop": 0.5,
    "random_horizontal_flip": 1,
    "random_vertical_flip": 1,
    "random_zoom": 0.9,
    "rotate": 30,
    "random_rotate": 40,
    "convert_color": "BGR2RGB",
    "normalize": {"mean": 0.5, "std": 1.5},
    "random_patches": {"number": 6, "size": 36},
}


def picture() -> np.ndarray:
    """(SIZE, SIZE, 3), BGR: a house, which shows where up and right are."""
    array = np.full((SIZE, SIZE, 3), (235, 190, 140), np.uint8)
    cv2.rectangle(array, (0, 104), (SIZE, SIZE), (80, 160, 90), -1)
    cv2.rectangle(array, (34, 62), (98, 118), (120, 150, 220), -1)
    cv2.fillPoly(array, [np.array([[26, 64], [66, 26], [106, 64]], np.int32)], (50, 60, 170), cv2.LINE_AA)
    cv2.rectangle(array, (74, 84), (90, 118), (60, 80, 110), -1)
    cv2.rectangle(array, (42, 74), (62, 94), (240, 235, 200), -1)
    cv2.circle(array, (122, 24), 13, (60, 220, 250), -1, cv2.LINE_AA)
    return array


def panels() -> list[tuple[str, np.ndarray]]:
    """(caption, picture) of the picture itself and of each transform; of `random_patches` the target too."""
    whole = picture()
    made = [("the picture", whole)]
    for number, (name, value) in enumerate(EXAMPLES.items()):
        transform = TRANSFORMS[name].model_validate({name: value})
        draw = transform.draw(generator(2, name, number), whole.shape)
        array = as_float(whole) if transform.on_floats else whole
        made.append((name, transform.apply(array, draw)))
        if transform.makes_targets:
            made.append(("its target", transform.on_targets().apply(array, draw)))
    return made


def sheet() -> np.ndarray:
    """All panels on white, a caption above each."""
    made = panels()
    rows = -(-len(made) // COLUMNS)
    wide, tall = SIZE + MARGIN, SIZE + MARGIN + TEXT
    page = np.full((rows * tall + MARGIN, COLUMNS * wide + MARGIN, 3), 255, np.uint8)
    for place, (caption, array) in enumerate(made):
        top, left = place // COLUMNS * tall + MARGIN, place % COLUMNS * wide + MARGIN
        at = (left, top + TEXT - 8)
        cv2.putText(page, caption, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (40, 40, 40), 1, cv2.LINE_AA)
        if array.dtype != np.uint8:
            array = (array.clip(0, 1) * 255).astype(np.uint8)
        height, width = array.shape[:2]
        page[top + TEXT : top + TEXT + height, left : left + width] = array
    return page


if __name__ == "__main__":
    cv2.imwrite(str(SHEET), sheet())
