"""The types of data there are."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rml_core.data.files import Reader


@dataclass(frozen=True)
class DataType:
    """What a section may say of a type, and who reads it.

    `meaning`: what it is, for the reference. `module`: the module of this package whose `READER` reads the files,
    imported when used; "": there are none. `as_input`: inputs can be of it. `beside_inputs`: as targets they are
    found where the inputs are, without a `target_path`. `grayscale`: has the keys of that name. `scaled`: 8 and 16 bit
    become floats in [0, 1]. `in_folders`: a sample lies in a folder, which may be its class. `sliced`: slicers cut
    it.
    """

    meaning: str
    module: str = ""
    as_input: bool = True
    beside_inputs: bool = False
    grayscale: bool = False
    scaled: bool = False
    in_folders: bool = True
    sliced: bool = False

    @property
    def of_files(self) -> bool:
        """As targets they are files of their own, below `target_path`."""
        return bool(self.module)

    @property
    def reader(self) -> Reader:
        reader: Reader = import_module(f"rml_core.data.{self.module}").READER
        return reader


DATA_TYPES = {
    "images": DataType(
        meaning="A file a sample, in any format that OpenCV decodes: 3 channels, BGR, or 1 with `grayscale`. "
        "8 and 16 bit become floats in [0, 1]. Inputs; and targets, as values or, with `target_is_mask`, as classes",
        module="images",
        grayscale=True,
        scaled=True,
    ),
    "labels": DataType(
        meaning="The class of a sample is the name of the folder that its input lies in; sorted, the names are the "
        "classes 0, 1, ... Targets only",
        as_input=False,
    ),
    "mnist": DataType(
        meaning="The IDX files of MNIST and its kin, plain or `.gz`: a folder with images and labels, of which "
        "training takes `train-...` and testing `t10k-...`, or one file. Images are 1 x H x W, in [0, 1]; as targets "
        "the labels are the classes, found beside the images where there is no `target_path`",
        module="mnist",
        beside_inputs=True,
        scaled=True,
        in_folders=False,
    ),
    "numpy": DataType(
        meaning="`.npy`: a file a sample. `.npz`: an array a sample. Of any numeric type, channels first, never "
        "scaled. Inputs; and targets, as values or, with `target_is_mask`, as classes",
        module="npy",
        sliced=True,
    ),
    "hdf5": DataType(
        meaning="A dataset a sample, in groups of any depth; `file.h5:/group/name` names one dataset or group. "
        "Otherwise as `numpy`",
        module="hdf5",
        sliced=True,
    ),
    "zarr": DataType(
        meaning="An array a sample, in groups of any depth, of format 2 or 3; `store.zarr:/group/name` names one array "
        "or group. Otherwise as `numpy`",
        module="zarr_stores",
        sliced=True,
    ),
}
LATER = ("pde",)

# Keys of types and sections that are not there yet.
LATER_KEYS = (
    "domain_size",
    "num_examples",
    "num_test_examples",
    "bc_frequency",
    "bc_type",
)
