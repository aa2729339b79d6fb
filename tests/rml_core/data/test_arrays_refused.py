"""Arrays that cannot be samples, each with the whole text of what is said."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from rml_core.config.problem import Refused, RunFailed
from rml_core.data.files import Form, Item
from rml_core.data.npy import READER as NPY

WHERE = "neural_network.data"


def noise(*shape):
    return np.random.default_rng(0).normal(0, 40, shape)


def refusal(work, **keys):
    with pytest.raises(Refused) as refused:
        work.survey(**keys)
    return str(refused.value)


REFUSED = {
    "truncated": (
        lambda path: (np.save(path, np.zeros((2, 3))), path.write_bytes(path.read_bytes()[:-8])),
        "a.npy",
        "is cut short: (2, 3) of float64 takes 176 bytes, and there are 168",
    ),
    "pickled": (
        lambda path: np.save(path, np.array([{}, None]), allow_pickle=True),
        "a.npy",
        "holds Python objects, which are never loaded: save plain numbers",
    ),
    "text": (lambda path: np.save(path, np.array(["ab", "c"])), "a.npy", "holds text (<U2): save numbers"),
    "complex": (
        lambda path: np.save(path, np.zeros(2, "c16")),
        "a.npy",
        "holds complex numbers (complex128): save real and imaginary part as two channels",
    ),
    "records": (
        lambda path: np.save(path, np.zeros(2, "i4,f4")),
        "a.npy",
        "holds records: save each field as an array of its own",
    ),
    "times": (lambda path: np.save(path, np.zeros(2, "M8[s]")), "a.npy", "holds times: save numbers"),
    "empty": (lambda path: np.save(path, np.zeros((0, 3))), "a.npy", "is empty: its shape is (0, 3)"),
    "axes": (
        lambda path: np.save(path, np.zeros((1, 1, 1, 1, 1))),
        "a.npy",
        "its shape is (1, 1, 1, 1, 1), and a sample has 4 axes at most: channels, and three of space; where all "
        "samples are in one array, write each by itself, or cut it with slicers",
    ),
    "no numpy": (
        lambda path: path.write_bytes(b"\xff\xd8\xff" * 9), "a.npy", "is no NumPy file: write it with np.save"
    ),
    "nothing": (lambda path: path.write_bytes(b""), "a.npy", "is no NumPy file: write it with np.save"),
    "half a header": (
        lambda path: (np.save(path, np.zeros(9)), path.write_bytes(path.read_bytes()[:50])),
        "a.npy",
        "is cut short: write or copy it again",
    ),
    "no arrays": (lambda path: np.savez(path), "a.npz", "has no arrays"),
    "half a zip": (
        lambda path: (np.savez(path, a=np.zeros(99)), path.write_bytes(path.read_bytes()[:-30])),
        "a.npz",
        "is cut short, or no .npz file",
    ),
    "no hdf5": (lambda path: path.write_bytes(b"no"), "a.h5", "is no HDF5 file"),
    "no datasets": (lambda path: h5py.File(path, "w").create_group("g").file.close(), "a.h5", "has no datasets"),
    "half a file": (
        lambda path: (h5py.File(path, "w").create_dataset("x", data=np.zeros(9999)).file.close(),
                      path.write_bytes(path.read_bytes()[:-900])),
        "a.h5",
        "cannot be read: truncated file: eof = 81140, sblock->base_addr = 0, stored_eof = 82040",
    ),
    "hdf5 text": (
        lambda path: h5py.File(path, "w").create_dataset("x", data="hello").file.close(),
        "a.h5",
        ":/x: holds Python objects, which are never loaded: save plain numbers",
    ),
    "hdf5 compound": (
        lambda path: h5py.File(path, "w").create_dataset("g/x", data=np.zeros(2, "i4,f4")).file.close(),
        "a.h5",
        ":/g/x: holds records: save each field as an array of its own",
    ),
    "hdf5 null": (
        lambda path: h5py.File(path, "w").create_dataset("x", data=h5py.Empty("f4")).file.close(),
        "a.h5",
        ":/x: is empty",
    ),
    "no zarr arrays": (lambda path: zarr.open_group(str(path), mode="w"), "a.zarr", "has no arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_samples(work, case):
    write, name, text = REFUSED[case]
    (work.folder / "in").mkdir()
    path = work.folder / "in" / name
    write(path)
    type_ = {".h5": "hdf5", ".zarr": "zarr"}.get(path.suffix, "numpy")
    text = text if text.startswith(":/") else f": {text}"
    for given in ("in", f"in/{name}"):
        assert refusal(work, input_type=type_, input_path=given) == f"{WHERE}.input_path: {path}{text}"


def test_nothing_that_is_pickled_is_executed(work):
    class Bomb:
        def __reduce__(self):
            return (Path.write_text, (work.folder / "exploded", "x"))

    np.save(work.folder / "a.npy", np.array([Bomb()]), allow_pickle=True)
    with pytest.raises(RunFailed):
        NPY.read(Item(str(work.folder / "a.npy")), Form("numpy"))
    np.savez(work.folder / "b.npz", allow_pickle=True, x=np.array([Bomb()]))
    refusal(work, input_type="numpy", input_path="b.npz")
    assert not (work.folder / "exploded").exists()


def test_a_name_that_is_not_inside(work):
    for kind, name in (("hdf5", "a.h5"), ("npz", "b.npz"), ("zarr3", "c.zarr")):
        work.save(kind, name, {"volumes/train": noise(3), "volumes/test": noise(3)})
        type_ = {"hdf5": "hdf5", "npz": "numpy", "zarr3": "zarr"}[kind]
        assert refusal(work, input_type=type_, input_path=f"{name}:/volumes/tran") == (
            f"{WHERE}.input_path: {work.folder}/{name}: has no volumes/tran: "
            'did you mean "volumes/train"?; it has volumes/test, volumes/train'
        )
        assert refusal(work, input_type=type_, input_path=f"{name}:/volume") == (
            f'{WHERE}.input_path: {work.folder}/{name}: has no volume: did you mean "volumes"?; it has volumes'
        )
    np.save(work.folder / "d.npy", noise(3))
    assert refusal(work, input_type="numpy", input_path="d.npy:/x") == (
        f"{WHERE}.input_path: {work.folder}/d.npy: has no x: a .npy file is one array"
    )
    assert refusal(work, input_type="hdf5", input_path=".:/x") == (
        f"{WHERE}.input_path: {work.folder} is a folder, and only a file has names inside\n"
        f"    name the file: {work.folder}/a.h5:/x"
    )


def test_damaged_zarr(work):
    for damage in ("zarr.json", "x/zarr.json"):
        work.save("zarr3", "a.zarr", {"x": noise(4)})
        (work.folder / "a.zarr" / damage).write_text("{")
        assert refusal(work, input_type="zarr", input_path="a.zarr").startswith(
            f"{WHERE}.input_path: {work.folder}/a.zarr: cannot be read: "
        )
    work.save("zarr3", "b.zarr", {"x": noise(4)})
    metadata = json.loads((work.folder / "b.zarr/x/zarr.json").read_text())
    assert metadata["shape"] == [4]
    (work.folder / "b.zarr/x/c/1").write_bytes(b"no chunk")
    with pytest.raises(RunFailed) as failed:
        work.batches(input_type="zarr", input_path="b.zarr")
    assert str(failed.value).startswith(f"{work.folder}/b.zarr:/x: cannot be read: ")


def test_shapes_that_differ(work):
    work.save("npy", "in", {"a": noise(2, 3, 4), "b": noise(2, 3, 5)})
    keys = {"input_type": "numpy", "input_path": "in"}
    assert refusal(work, **keys) == (
        f"{WHERE}.input_path: sizes differ: {work.folder}/in/a.npy gives 4 x 3 (width x height), "
        f"{work.folder}/in/b.npy 5 x 3 (width x height)\n"
        "    allowed: samples of one size\n"
        '    add a transform that makes them equal, as {"resize": [Sx, Sy]}, or set batch_size to 1'
    )
    assert work.survey(batch_size=1, **keys).sample_shape == (2, 3, None)
    assert len(work.batches(batch_size=1, **keys)) == 2
    work.save("npy", "vol", {"a": noise(2, 3, 4, 5), "b": noise(2, 3, 5, 5)})
    assert refusal(work, input_type="numpy", input_path="vol") == (
        f"{WHERE}.input_path: shapes differ: {work.folder}/vol/a.npy is (2, 3, 4, 5), "
        f"{work.folder}/vol/b.npy is (2, 3, 5, 5)\n"
        "    allowed: samples of one shape\n"
        "    make them equal, or set batch_size to 1"
    )
    assert [
        batch.inputs.shape for batch in work.batches(False, input_type="numpy", input_path="vol", batch_size=1)
    ] == [
        (1, 2, 3, 4, 5),
        (1, 2, 3, 5, 5),
    ]


def test_ranks_and_channels_that_differ(work):
    work.save("hdf5", "a.h5", {"a": noise(2, 3, 4), "b": noise(3, 4)})
    assert refusal(work, input_type="hdf5", input_path="a.h5", batch_size=1) == (
        f"{WHERE}.input_path: shapes differ: {work.folder}/a.h5:/a is (2, 3, 4), {work.folder}/a.h5:/b is (3, 4)\n"
        "    allowed: samples of one rank, channels first"
    )
    work.save("hdf5", "b.h5", {"a": noise(2, 3, 4), "b": noise(3, 3, 4)})
    assert refusal(work, input_type="hdf5", input_path="b.h5", batch_size=1) == (
        f"{WHERE}.input_path: shapes differ: {work.folder}/b.h5:/a is (2, 3, 4), {work.folder}/b.h5:/b is (3, 3, 4)\n"
        "    allowed: samples of as many channels, channels first"
    )


def test_masks_that_are_none(work):
    work.save("npy", "in", {"a": noise(2, 3, 4)})
    work.save("npy", "t", {"a": np.zeros((3, 3, 4), int)})
    keys = {"type": "numpy", "input_path": "in", "target_path": "t", "target_is_mask": True}
    assert refusal(work, **keys) == (
        f"{WHERE}.target_path: {work.folder}/t/a.npy: a mask has one channel, and its shape is (3, 3, 4), "
        "channels first\n"
        "    give one integer a pixel or voxel, the class"
    )
    for array, text in (
        (np.full((3, 4), 0.5), "a mask holds integers, this one has fractions"),
        (np.full((3, 4), 2**40), "a mask holds integers, this one has values of more than 32 bits"),
        (np.full((3, 4), np.nan), "a mask holds integers, this one has fractions"),
    ):
        work.save("npy", "t", {"a": array})
        with pytest.raises(RunFailed) as failed:
            work.prepare(**keys)
        assert str(failed.value) == f"{work.folder}/t/a.npy: {text}"


def test_partners_that_are_missing(work):
    work.save("hdf5", "x.h5", {"g/a": noise(3), "g/b": noise(3), "c": noise(3)})
    work.save("hdf5", "y.h5", {"g/a": noise(3), "g/d": noise(3)})
    assert refusal(work, type="hdf5", input_path="x.h5", target_path="y.h5") == (
        f"{WHERE}.target_path: 3 inputs in {work.folder} and 2 targets in {work.folder} do not pair; "
        "inputs without a target: x.h5/c, x.h5/g/b; targets without an input: y.h5/g/d\n"
        "    give both the same name (suffixes may differ), or as many of one as of the other"
    )


def test_files_of_another_type(work):
    work.write("in/a.jpg")
    for type_, files in (
        ("numpy", "NumPy files (.npy, .npz)"),
        ("hdf5", "HDF5 files (.h5, .hdf5)"),
        ("zarr", "Zarr stores"),
    ):
        assert refusal(work, input_type=type_, input_path="in") == (
            f"{WHERE}.input_path: {work.folder}/in has no {files}, only other files: 1 .jpg\n"
            f"    name the folder that has the {files}, or put them there"
        )
    for type_, what in (("numpy", "NumPy file: write it with np.save"), ("hdf5", "HDF5 file"), ("zarr", "Zarr store")):
        assert refusal(work, input_type=type_, input_path="in/a.jpg") == (
            f"{WHERE}.input_path: {work.folder}/in/a.jpg: is no {what}"
        )


def test_data_that_is_damaged_where_no_header_tells(work):
    work.save("compressed", "a.npz", {"x": np.zeros((1, 400))})
    content = bytearray((work.folder / "a.npz").read_bytes())
    found = content.index(b"x.npy") + 40
    content[found : found + 8] = b"\xff" * 8
    (work.folder / "a.npz").write_bytes(bytes(content))
    text = refusal(work, input_type="numpy", input_path="a.npz")
    assert text.startswith(f"{WHERE}.input_path: {work.folder}/a.npz: cannot be read: ")


def test_predictions_that_could_not_be_named(work):
    work.save("npz", "a.npz", {"x": noise(3), "x/y": noise(3)})
    keys = {"input_type": "numpy", "test_input_path": "a.npz"}
    assert work.survey("test", **keys).count == 2
    with pytest.raises(Refused) as refused:
        work.survey("test", **keys, test_output_path="out")
    assert str(refused.value) == (
        f"{WHERE}.test_output_path: a.npz/x and a.npz/x/y cannot both be in an HDF5 file: a dataset is no group\n"
        "    rename one of the two"
    )


@pytest.mark.parametrize(("kind", "name"), [("hdf5", "a.h5"), ("npz", "a.npz"), ("zarr3", "a.zarr")])
def test_groups_that_are_named_pair_by_the_names_below_them(work, kind, name):
    work.save(kind, name, {f"{group}/{sample}": noise(3) for group in "xy" for sample in ("a", "b")})
    type_ = {"hdf5": "hdf5", "npz": "numpy", "zarr3": "zarr"}[kind]
    below = ("/x/a", "/y/a") if kind == "npz" else ("/x", "/y")
    pairs = [tuple(f"{name}:{inside}" for inside in below)]
    if kind != "npz":
        # Whole names agree where a file of one group stands beside a group.
        work.save(kind, f"x{name}", {"x/a": noise(3), "x/b": noise(3)})
        pairs.append((f"{name}:/x", f"x{name}"))
    for inputs, targets in pairs:
        assert work.survey(type=type_, input_path=inputs, target_path=targets).warnings == ()
