"""Volumes and slicers that cannot be used: told before any work, all at once, and nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

DATA = "neural_network.data"


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Any]:
    """The section of a run file that trains on slices of one volume, and assembles the predictions of another."""
    for name, length in (("v", 8), ("w", 12)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["grey"] = np.zeros((length, 6, 5), "u1")
            file["mask"] = np.zeros((length, 6, 5), "u1")
    layer = {"filters": 2, "kernel_size": 3, "padding": "same", "activation": "log_softmax"}
    return {
        "outfile": "logs/out.txt",
        "layers": [{"class_name": "Conv2D", "config": {"name": "conv", **layer}}],
        "data": {
            "type": "hdf5",
            "input_path": "v.h5:/grey",
            "target_path": "v.h5:/mask",
            "test_input_path": "w.h5:/grey",
            "test_target_path": "w.h5:/mask",
            "target_is_mask": True,
            "slicers": [{"name": "rows", "sizes": [1, 6, 5]}, {"name": "columns", "sizes": [8, 1, 5]}],
            "hdf5_outfile": "prediction.h5",
        },
        "optimizer": {"type": "SGD", "learning_rate": 0.1},
        "loss": {"function": "NLL"},
    }


def test_restrictions_that_the_keys_tell(volumes: dict[str, Any], refuses: Any):
    rows, columns = volumes["data"]["slicers"]
    rows |= {"padding": 2, "padded_sizes": [1, 8, 7], "strides": [1, 6]}
    columns |= {"name": "rows", "sizes": [8, 2, 5], "padded_sizes": [8, 1, 5], "transpose": True}
    volumes["data"] |= {"transforms": [{"resize": [5, 5]}], "hdf5_precision": "double"}
    volumes["optimizer"]["learning_rate"] = 0
    refuses(
        volumes,
        f"{DATA}.slicers[0].padded_sizes: stands beside padding, and both say what is added\n"
        "    leave out one of the two",
        f"{DATA}.slicers[0].strides: [1, 6] does not go with 3 sizes\n    allowed: a number for each of the sizes",
        f"{DATA}.slicers[1].transpose: is for 2D samples, and the sizes [8, 2, 5] make 3D ones\n"
        "    leave out transpose",
        f"{DATA}.slicers[1].padded_sizes[1]: 1 is less than the size, 2\n    allowed: at least 2",
        f'{DATA}.hdf5_precision: unknown precision "double"\n    allowed: single, half',
        f'{DATA}.slicers[1].name: "rows" is what slicers[0] is called\n    allowed: another name',
        f"{DATA}.slicers[1].sizes: [8, 2, 5] makes 3D samples, and slicers[0] 2D ones\n"
        "    allowed: samples of one rank: one network takes all of them",
        f"{DATA}.transforms[0].resize: moves pixels, and hdf5_outfile puts predictions where their slices lie\n"
        "    leave out one of the two: assemble in a run of its own, which loads what this one saves",
        "neural_network.optimizer.learning_rate: 0 does not fit\n    allowed: greater than 0",
    )


def test_restrictions_that_the_arrays_tell(volumes: dict[str, Any], refuses: Any, tmp_path: Path):
    volumes["data"]["input_path"] = "v.h5"
    volumes["data"]["slicers"][0]["discard_remainders"] = True
    with h5py.File(tmp_path / "w.h5", "a") as file:
        del file["grey"]
        file["grey"] = np.zeros((12, 5, 5), "u1")
    refuses(
        volumes,
        f"{DATA}.input_path: {tmp_path}/v.h5 has 2 arrays, and slicers cut one: grey, mask\n"
        f"    name it, as {tmp_path}/v.h5:/grey",
        f"{DATA}.test_target_path: {tmp_path}/w.h5:/grey is 12 x 5 x 5, and its targets in {tmp_path}/w.h5:/mask 12 x "
        "6 x 5\n    allowed: arrays of one shape, channels apart",
        f"{DATA}.slicers[0].sizes[1]: 6 is more than axis 1 of {tmp_path}/w.h5:/grey has, 5: there are no slices\n"
        "    allowed: at most 5\n    or leave discard_remainders out: slices are then filled up",
    )


def test_restrictions_that_the_network_tells(volumes: dict[str, Any], refuses: Any):
    volumes["layers"][0]["config"] |= {"padding": "valid", "filters": 256}
    volumes["data"]["hdf5_output"] = "argmax"
    for key in ("target_path", "input_path", "test_target_path", "target_is_mask"):
        del volumes["data"][key]
    said = (
        "    allowed: a network that changes the channels alone\n"
        "    let the last layer give the size of the slices, or leave hdf5_outfile out"
    )
    refuses(
        volumes,
        f"{DATA}.hdf5_outfile: of slices (1, 6, 5) of rows the network makes (256, 4, 3), channels first\n{said}",
        f"{DATA}.hdf5_outfile: of slices (1, 8, 5) of columns the network makes (256, 6, 3), channels first\n{said}",
        f"{DATA}.hdf5_output: the network gives 256 classes, and they are written as bytes\n"
        '    allowed: at most 255 classes\n    or "hdf5_output": "values"',
    )


def test_a_file_that_is_cut_short(volumes: dict[str, Any], refuses: Any, tmp_path: Path):
    np.save(tmp_path / "v.npy", np.zeros((8, 6, 5), "u1"))
    (tmp_path / "v.npy").write_bytes((tmp_path / "v.npy").read_bytes()[:-7])
    volumes["data"] |= {"input_type": "numpy", "target_type": "hdf5", "input_path": "v.npy"}
    del volumes["data"]["type"], volumes["data"]["test_input_path"], volumes["data"]["test_target_path"]
    del volumes["data"]["hdf5_outfile"]
    refuses(
        volumes,
        f"{DATA}.input_path: {tmp_path}/v.npy: is cut short: (8, 6, 5) of uint8 takes 368 bytes, and there are 361",
    )


@pytest.mark.parametrize("place", ["file/prediction.h5", "folder.h5", "/proc/nowhere/prediction.h5"])
def test_an_outfile_that_cannot_be_written(volumes: dict[str, Any], refuses: Any, tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "logs").mkdir()
    volumes["data"]["hdf5_outfile"] = place
    why = {"f": f"{tmp_path}/file is a file", "folder.h5": "is a directory"}
    said = why.get(place) or why.get(place[0], "no such file or directory")
    path = place if place.startswith("/") else f"{tmp_path}/{place}"
    refuses(
        volumes,
        f"{DATA}.hdf5_outfile: {path} cannot be written: {said}\n    choose another place, or make this one writable",
    )
