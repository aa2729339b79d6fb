"""The types of data there are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataType:
    """What a section may say of a type. `meaning`: what it is, for the reference. `as_input`: inputs can be of it.
    `of_files`: as targets they are files of their own, below `target_path`. `images`: has `grayscale` and 2D
    transforms."""

    meaning: str
    as_input: bool
    of_files: bool
    images: bool


DATA_TYPES = {
    "images": DataType(
        meaning="A file a sample, in any format that OpenCV decodes: 3 channels, BGR, or 1 with `grayscale`. "
        "8 and 16 bit become floats in [0, 1]. Inputs; and targets, as values or, with `target_is_mask`, as classes",
        as_input=True,
        of_files=True,
        images=True,
    ),
    "labels": DataType(
        meaning="The class of a sample is the name of the folder that its input lies in; sorted, the names are the "
        "classes 0, 1, ... Targets only",
        as_input=False,
        of_files=False,
        images=False,
    ),
}
LATER = ("mnist", "numpy", "hdf5", "pde", "zarr")

# Keys of types and sections that are not there yet.
LATER_KEYS = (
    "slicers",
    "hdf5_outfile",
    "hdf5_precision",
    "hdf5_output",
    "overlap_blend",
    "domain_size",
    "num_examples",
    "num_test_examples",
    "bc_frequency",
    "bc_type",
)
