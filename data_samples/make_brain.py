"""Write slabs of a brain for `make demo`: `python data_samples/make_brain.py [FOLDER]`.

The MNI ICBM152 template (2009a, symmetric, 1 mm) lies in the installed package nilearn, which is only looked up, not
imported. Of its T1 picture and its map of grey matter two slabs of coronal planes are cut, `test` before `train`, and

    <part>_t1.npy     uint8 (157, 108 or 54, 149), brightness as in the source
    <part>_grey.npy   the same, 1 where grey matter is more probable than not

are written: from top to bottom, from the forehead backwards, from left to right. The template's halves mirror each
other: slabs from left to right would show the network what it is tested with. Between the slabs are planes that are in
neither, since neighbouring ones look alike.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

NAME = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
# The brain lies between these planes of the source, (from left, from the back, from below).
ACROSS, UP = slice(24, 173), slice(0, 157)
SLABS = {"train": slice(26, 134), "test": slice(148, 202)}
LIKELY = 127  # of 255


def source(kind: str) -> NDArray[np.uint8]:
    """The template's volume of a kind: t1, gm or wm."""
    found = find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("nilearn, whose brain this is, is not installed: pip install '.[demo]'")
    image = nibabel.load(Path(found.submodule_search_locations[0]) / NAME.format(kind))
    return np.asanyarray(image.dataobj)


def write(folder: Path) -> None:
    brightness, grey = source("t1"), source("gm") > LIKELY
    folder.mkdir(parents=True, exist_ok=True)
    for part, slab in SLABS.items():
        for name, volume in (("t1", brightness), ("grey", grey)):
            cut = volume[ACROSS, slab, UP].astype(np.uint8)
            np.save(folder / f"{part}_{name}.npy", np.ascontiguousarray(cut.T[::-1, ::-1]))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "demo" / "brain")
