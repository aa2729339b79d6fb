"""The proof that slices can be cut: three of a set, of inputs and targets, and what is said where they cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rml_core.check import check
from rml_core.config.problem import RunFailed
from rml_core.data.prepared import Prepared
from rml_core.run import read
from tasks.load import Source, load
from tasks.slice import SliceSet, Slicing, slice_

Loaded = Callable[..., tuple[Source, Prepared]]


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    """A role with two slice sets, loaded: `input_type` and the paths are given."""

    def made(**data: Any) -> tuple[Source, Prepared]:
        section = {
            "layers": [{"class_name": "Activation", "config": {"activation": "linear"}}],
            "data": {
                "slicers": [{"name": "bricks", "sizes": [4, 4, 4]}, {"sizes": [3, 5, 5], "strides": [1, 5, 5]}],
                **data,
            },
        }
        checked = check(read({"neural_network": section}, tmp_path))
        assert checked.test is not None
        source = Source(checked.test, checked.run.file.data, None)
        return source, load(source)

    return made


def test_a_set_is_a_handle(loaded: Loaded, tmp_path: Path):
    np.save(tmp_path / "v.npy", np.zeros((8, 9, 10)))
    source, prepared = loaded(input_type="numpy", test_input_path="v.npy")
    one, other = Slicing(source, 0), Slicing(source, 1)
    assert slice_(one, prepared) == SliceSet("test bricks: 18 slices")
    assert slice_(other, prepared) == SliceSet("test slice_set_2: 24 slices")
    assert len({source.key, one.key, other.key}) == 3
    assert one.is_whole()


def test_an_array_that_has_another_shape_than_planned_is_told(loaded: Loaded, tmp_path: Path):
    np.save(tmp_path / "v.npy", np.zeros((8, 9, 10)))
    source, prepared = loaded(input_type="numpy", test_input_path="v.npy")
    np.save(tmp_path / "v.npy", np.zeros((8, 9, 9)))
    with pytest.raises(RunFailed) as failed:
        slice_(Slicing(source, 0), prepared)
    assert str(failed.value) == f"{tmp_path}/v.npy is 8 x 9 x 9, not 8 x 9 x 10 as before: has the file changed?"


def test_a_slice_that_cannot_be_read_is_named_with_its_set_and_its_box(loaded: Loaded, tmp_path: Path):

    random = np.random.default_rng(0)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_dataset("v", data=random.random((8, 8, 8)), chunks=(4, 8, 8), compression="gzip")
    with h5py.File(tmp_path / "v.h5") as file:
        place = file["v"].id.get_chunk_info(0)
    with (tmp_path / "v.h5").open("r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    source, prepared = loaded(input_type="hdf5", test_input_path="v.h5")
    with pytest.raises(RunFailed) as failed:
        slice_(Slicing(source, 0), prepared)
    place_of_it = "bricks, slice 0 at [0:4, 0:4, 0:4]"
    assert str(failed.value).startswith(f"{place_of_it}: {tmp_path}/v.h5:/v: cannot be read: ")
