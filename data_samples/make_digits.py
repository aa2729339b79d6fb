"""Write scikit-learn's handwritten digits as PNG folders: `python data_samples/make_digits.py [FOLDER]`.

`digits/{train,test}/<digit>/<index>.png`: 8 x 8 pixels, grey, 8 bits; `<index>` is the image's place in
`sklearn.datasets.load_digits`. Of each digit every fifth image, in the data set's order, is a test image.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

BRIGHTEST = 16  # each pixel of the source counts the inked ones among 4 x 4
EVERY = 5


def write(folder: Path) -> None:
    digits = load_digits()
    seen: Counter[int] = Counter()
    for index, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        seen[digit] += 1
        part = "test" if seen[digit] % EVERY == 0 else "train"
        path = folder / part / str(digit) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.round(image * 255 / BRIGHTEST).astype(np.uint8)
        if not cv2.imwrite(str(path), grey, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
            raise OSError(f"{path} could not be written")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "digits")
