"""Write stardist's pair of nuclei as NumPy files: `python data_samples/make_nuclei.py IMAGES [FOLDER]`.

IMAGES is the folder `data/images` of the package stardist 0.9.2 (`pip install --no-deps stardist==0.9.2` into an
environment of its own). `img2d.tif` becomes `nuclei/{train,test}_image.npy`, uint16; of `mask2d.tif`, in which every
nucleus has its number, `nuclei/{train,test}_mask.npy` keeps whether a pixel is of one: uint8, 0 or 1.

The picture's rows from TEST on are for testing, those before TRAIN for training. Rows between them are in neither:
they cross the same nuclei.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

TRAIN, TEST = 352, 368


def write(images: Path, folder: Path) -> None:
    image, mask = (cv2.imread(str(images / name), cv2.IMREAD_UNCHANGED) for name in ("img2d.tif", "mask2d.tif"))
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", slice(TRAIN)), ("test", slice(TEST, None))):
        np.save(folder / f"{part}_image.npy", image[rows])
        np.save(folder / f"{part}_mask.npy", (mask[rows] > 0).astype(np.uint8))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "nuclei")
