"""The slice sets of arrays that are there, known from their headers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from rml_core.config.problem import Refused
from rml_core.config.target import Target
from rml_core.data.files import Item

WHERE = "neural_network.data"
BLOCKS = [{"name": "blocks", "sizes": [4, 4, 4]}]
ROWS = [{"name": "rows", "sizes": [1, 6, 5]}, {"name": "columns", "sizes": [8, 1, 5], "transpose": True}]


def npy(folder: Path, name: str, *shape: int, dtype: str = "f4") -> str:
    np.save(folder / name, np.zeros(shape, dtype))
    return name


def refusal(work: Any, **keys: Any) -> str:
    with pytest.raises(Refused) as refused:
        work.survey(**keys)
    return str(refused.value)


@pytest.mark.parametrize("kind", ["npy", "npz", "hdf5", "zarr2", "zarr3"])
def test_one_array_in_every_format(work: Any, kind: str):
    names = {"npy": "v", "npz": "v.npz", "hdf5": "v.h5"}
    path = work.save(kind, names.get(kind, "v.zarr"), {"a": np.zeros((2, 8, 6, 5), "u2")})
    found = work.survey(type={"npz": "numpy", "npy": "numpy"}.get(kind, kind[:4] if "zarr" in kind else kind),
                        input_path=path, slicers=ROWS)  # fmt: skip
    file = str(work.folder / (f"{path}/a.npy" if kind == "npy" else path))
    assert found.inputs == (Item(file, "" if kind == "npy" else "a"),)
    assert (found.names, found.labels, found.targets, found.target) == ((), None, None, None)
    assert [(grid.name, grid.counts) for grid in found.grids] == [("rows", (8, 1, 1)), ("columns", (1, 6, 1))]
    assert (found.count, found.batches) == (14, 2)
    assert found.set_shapes == ((2, 6, 5), (2, 5, 8))
    assert found.sample_shape == (2, None, None)
    assert not found.input_form.add_channel


def test_an_array_of_the_rank_of_the_sizes_gets_a_channel(work: Any):
    npy(work.folder, "v.npy", 3, 8, 6, 5)
    npy(work.folder, "m.npy", 8, 6, 5, dtype="u1")
    keys = {"type": "numpy", "input_path": "v.npy", "target_path": "m.npy", "slicers": BLOCKS}
    found = work.survey(**keys, target_is_mask=True)
    assert found.targets == (Item(str(work.folder / "m.npy")),)
    assert (found.sample_shape, found.target) == ((3, 4, 4, 4), Target("mask", (4, 4, 4)))
    assert (found.input_form.add_channel, found.target_form.add_channel) == (False, True)
    found = work.survey(**keys)
    assert found.target == Target("values", (1, 4, 4, 4))
    found = work.survey("test", type="numpy", test_input_path="m.npy", test_target_path="v.npy", slicers=BLOCKS)
    assert (found.sample_shape, found.target) == ((1, 4, 4, 4), Target("values", (3, 4, 4, 4)))
    assert (found.input_form.add_channel, found.target_form.add_channel) == (True, False)


def test_targets_of_sets_of_several_sizes(work: Any):
    for name in ("v.npy", "m.npy"):
        npy(work.folder, name, 8, 6, 5)
    keys = {"type": "numpy", "input_path": "v.npy", "target_path": "m.npy", "slicers": ROWS}
    found = work.survey(**keys)
    assert found.target == Target("values", (1, None, None))
    assert found.set_targets == (Target("values", (1, 6, 5)), Target("values", (1, 5, 8)))
    assert [part.name for part in found.parts] == ["rows", "columns"]
    assert [part.shape for part in found.parts] == [(1, 6, 5), (1, 5, 8)]
    found = work.survey(**keys, transforms=[{"resize": [7, 3]}])
    assert (found.sample_shape, found.set_shapes, found.target) == (
        (1, 3, 7),
        ((1, 3, 7), (1, 3, 7)),
        Target("values", (1, 3, 7)),
    )


def test_batches_never_mix_sets(work: Any):
    npy(work.folder, "v.npy", 8, 6, 5)
    found = work.survey(type="numpy", input_path="v.npy", slicers=ROWS, batch_size=5)
    assert (found.count, found.batches) == (8 + 6, 2 + 2)


def test_single_voxels_and_lines(work: Any):
    npy(work.folder, "v.npy", 7, 8, 6)
    found = work.survey(type="numpy", input_path="v.npy", slicers=[{"sizes": [1, 1]}])
    assert (found.count, found.sample_shape) == (48, (7,))
    found = work.survey(type="numpy", input_path="v.npy", slicers=[{"sizes": [1, 6], "padding": 2}])
    assert (found.count, found.sample_shape) == (8, (7, 10))


def test_four_axes_of_space(work: Any):
    """A film of volumes."""
    npy(work.folder, "v.npy", 2, 3, 4, 4, 4)
    found = work.survey(type="numpy", input_path="v.npy", slicers=[{"sizes": [1, 4, 4, 2]}])
    assert (found.count, found.sample_shape, found.grids[0].counts) == (6, (2, 4, 4, 2), (3, 1, 1, 2))


def test_targets_made_of_the_slices(work: Any):
    npy(work.folder, "v.npy", 8, 6, 5)
    patches = [{"random_patches": {"number": 1, "size": 2}}]
    found = work.survey(input_type="numpy", input_path="v.npy", slicers=ROWS, transforms=patches)
    assert found.set_targets == (Target("values", (1, 6, 5)), Target("values", (1, 5, 8)))


@pytest.mark.parametrize(
    ("files", "path", "text"),
    [
        (["a.npy", "b.npy"], ".", "{0} has 2 files, and slicers cut one: a.npy, b.npy\n    name it, as {0}/a.npy"),
        (
            {"raw": 3, "mask": 3},
            "v.h5",
            "{0}/v.h5 has 2 arrays, and slicers cut one: mask, raw\n    name it, as {0}/v.h5:/mask",
        ),
        (
            {f"g/{i}": 3 for i in range(12)},
            "v.h5:/g",
            "{0}/v.h5 has 12 arrays, and slicers cut one: g/0, g/1, g/2, g/3, g/4, g/5, g/6, g/7, g/8, g/9 and 2 more\n"
            "    name it, as {0}/v.h5:/g/0",
        ),
    ],
)
def test_several_arrays(work: Any, files: Any, path: str, text: str):
    for name in files if isinstance(files, list) else ():
        npy(work.folder, name, 4, 4, 4)
    if isinstance(files, dict):
        work.save("hdf5", "v.h5", {name: np.zeros((4, 4, 4)) for name in files})
    kind = "hdf5" if isinstance(files, dict) else "numpy"
    assert refusal(work, type=kind, input_path=path, slicers=BLOCKS) == f"{WHERE}.input_path: " + text.format(
        work.folder
    )
    if kind == "hdf5":
        named = f"v.h5:/{next(iter(files))}"
        assert work.survey(type=kind, input_path=named, slicers=BLOCKS).count == 1


def test_an_array_beside_what_is_none(work: Any):
    with h5py.File(work.folder / "v.h5", "w") as file:
        file["raw"] = np.zeros((4, 4, 4))
        file["notes"] = "a text"
    assert work.survey(type="hdf5", input_path="v.h5:/raw", slicers=BLOCKS).count == 1
    assert refusal(work, type="hdf5", input_path="v.h5", slicers=BLOCKS) == (
        f"{WHERE}.input_path: {work.folder}/v.h5:/notes: holds Python objects, which are never loaded: save plain "
        f"numbers; or name one that fits, as {work.folder}/v.h5:/raw"
    )
    group = zarr.open_group(str(work.folder / "v.zarr"), mode="w")
    group.create_array("0", shape=(4, 4, 4), dtype="f4", chunks=(4, 4, 4))
    assert work.survey(type="zarr", input_path="v.zarr", slicers=BLOCKS).inputs[0].inside == "0"


REFUSED: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, Any], str]] = {
    "rank": (
        {"v": (4, 4), "m": (2, 3, 4, 4, 4)},
        {"target_path": "m.npy"},
        "{0}.input_path: {1}/v.npy has 2 axes, its shape is (4, 4), and the slicers have 3 sizes\n"
        "    allowed: a size for each axis of space, or for each but the first, which is then the channels\n"
        "{0}.target_path: {1}/m.npy has 5 axes, its shape is (2, 3, 4, 4, 4), and the slicers have 3 sizes\n"
        "    allowed: a size for each axis of space, or for each but the first, which is then the channels",
    ),
    "shapes that differ": (
        {"v": (3, 8, 6, 5), "m": (8, 6, 4)},
        {"target_path": "m.npy"},
        "{0}.target_path: {1}/v.npy is 8 x 6 x 5, and its targets in {1}/m.npy 8 x 6 x 4\n"
        "    allowed: arrays of one shape, channels apart",
    ),
    "too few sizes": (
        {"v": (70, 61, 57), "m": (70, 61, 57)},
        {"slicers": [{"sizes": [24, 24]}], "target_path": "m.npy", "target_is_mask": True},
        "{0}.slicers[0].sizes: [24, 24] has 2 numbers, and {1}/m.npy has 3 axes, (70, 61, 57): the first counts as 70 "
        "channels\n    write 3 numbers, as [1, 24, 24]",
    ),
    "a mask with channels": (
        {"v": (8, 6, 5), "m": (2, 8, 6, 5)},
        {"target_path": "m.npy", "target_is_mask": True},
        "{0}.target_path: {1}/m.npy: a mask has one channel, and its shape is (2, 8, 6, 5), channels first\n"
        "    give one integer a pixel or voxel, the class",
    ),
    "larger than the array": (
        {"v": (8, 6, 3)},
        {"slicers": [{"sizes": [9, 4, 4], "discard_remainders": True}, {"sizes": [9, 4, 4]}]},
        "{0}.slicers[0].sizes: 9 and 4 are more than axes 0 and 2 of {1}/v.npy have, 8 and 3: there are no slices\n"
        "    allowed: at most 8 and 3\n    or leave discard_remainders out: slices are then filled up",
    ),
    "larger than the array along all axes": (
        {"v": (8, 6, 3)},
        {"slicers": [{"sizes": [9, 9, 9], "discard_remainders": True}]},
        "{0}.slicers[0].sizes: 9, 9 and 9 are more than axes 0, 1 and 2 of {1}/v.npy have, 8, 6 and 3: there are no "
        "slices\n    allowed: at most 8, 6 and 3\n    or leave discard_remainders out: slices are then filled up",
    ),
    "transforms of blocks": (
        {"v": (8, 6, 5)},
        {"transforms": [{"normalize": {"mean": 1}}, {"random_horizontal_flip": 0.5}]},
        "{0}.transforms[1].random_horizontal_flip: acts on 2D samples, and these are 3D\n"
        "    leave it out: only `normalize` goes with such samples",
    ),
    "transforms that are too large for a set": (
        {"v": (8, 6, 5)},
        {"slicers": ROWS, "transforms": [{"center_crop": [5, 6]}]},
        "{0}.transforms[0].center_crop: 5 x 6 is larger than a sample of 8 x 5 (width x height)\n"
        "    crop less, or `resize` before it",
    ),
    "sizes that are drawn": (
        {"v": (8, 60, 50)},
        {"slicers": [{"sizes": [1, 60, 50]}], "transforms": [{"jitter_crop": 0.5}], "batch_size": 2},
        "{0}.transforms[0].jitter_crop: gives each sample a size of its own, and a batch has 2 samples\n"
        "    allowed: samples of one size\n"
        '    add {{"resize": [Sx, Sy]}} behind it, or set batch_size to 1',
    ),
    "colours": (
        {"v": (8, 6, 5)},
        {"slicers": ROWS, "transforms": [{"convert_color": "BGR2HSV"}]},
        "{0}.transforms[0].convert_color: BGR2HSV does not take samples of 1 channels",
    ),
    "colours of a type": (
        {"v": (8, 6, 5)},
        {"slicers": ROWS, "transforms": [{"convert_color": "BayerBG2BGR"}]},
        "{0}.transforms[0].convert_color: does not take the samples as they are here: 1 channels of int64 in {1}/v.npy",
    ),
    "channels last": (
        {"v": (8, 6, 5, 3)},
        {"slicers": [{"sizes": [4, 4, 4]}]},
        "{0}.input_path: arrays are channels first, and {1}/v.npy of shape (8, 6, 5, 3) looks channels last\n"
        "    put the channels first: np.moveaxis(x, -1, 0)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(work: Any, case: str):
    shapes, keys, text = REFUSED[case]
    for name, shape in shapes.items():
        npy(work.folder, f"{name}.npy", *shape, dtype="i8")
    given = {"input_type" if "m" not in shapes else "type": "numpy", "input_path": "v.npy", "slicers": BLOCKS}
    assert refusal(work, **given | keys) == text.format(WHERE, work.folder)


def test_a_network_tells_channels_that_are_last(work: Any):
    npy(work.folder, "v.npy", 8, 6, 6, 5)

    def takes(shape: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
        return shape if shape[0] == 5 else None

    keys = {"type": "numpy", "input_path": "v.npy", "slicers": BLOCKS}
    assert work.survey(**keys).sample_shape == (8, 4, 4, 4)
    assert refusal(work, **keys, takes=takes) == (
        f"{WHERE}.input_path: arrays are channels first, and {work.folder}/v.npy of shape (8, 6, 6, 5) looks channels "
        "last\n    put the channels first: np.moveaxis(x, -1, 0)"
    )
    few = {**keys, "slicers": [{"sizes": [4, 4, 1]}]}
    npy(work.folder, "v.npy", 8, 6, 6, 3)
    assert work.survey(**few).grids[0].counts == (2, 2, 3)


def test_only_headers_are_read(work: Any, monkeypatch: pytest.MonkeyPatch):
    """A file of 10^12 bytes, none of which takes room, and 10^9 slices."""
    path = work.folder / "v.npy"
    with path.open("wb") as file:
        shape = (1000, 10**6, 1000)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + 10**12)
    found = work.survey(type="numpy", input_path="v.npy", slicers=[{"sizes": [1, 1, 1000]}], batch_size=7)
    assert (found.count, found.batches, found.sample_shape) == (10**9, -(-(10**9) // 7), (1, 1000))
    assert path.stat().st_blocks < 100
