"""Arrays in NumPy, HDF5 and Zarr files as samples: what is found, what is read, and how they are refused.

The oracle is the array that was written.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from rml_core.config.problem import Refused
from rml_core.config.target import Target
from rml_core.data.samples import Samples

WHERE = "neural_network.data"

# How a kind of the conftest's savers is written, as the type that reads it.
KINDS = {
    "npy": ("numpy", "in"),
    "npz": ("numpy", "in/a.npz"),
    "compressed": ("numpy", "in/a.npz"),
    "hdf5": ("hdf5", "in/a.h5"),
    "zarr2": ("zarr", "in/a.zarr"),
    "zarr3": ("zarr", "in/a.zarr"),
}
DTYPES = ["bool", "u1", "i1", ">u2", "<i2", ">i4", "u4", "<i8", "u8", "<f2", ">f2", ">f4", "f4", ">f8", "f8"]


def noise(*shape, dtype="f4", seed=0):
    array = np.random.default_rng(seed).normal(0, 40, shape)
    return (array > 0) if dtype == "bool" else np.abs(array).astype(dtype)


def refusal(work, **keys):
    with pytest.raises(Refused) as refused:
        work.survey(**keys)
    return str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("shape", [(5,), (2, 7), (3, 4, 6), (1, 4, 6), (2, 3, 4, 5)], ids=str)
def test_samples_are_the_arrays_of_the_file(work, kind, preload, shape):
    """Of every numeric type, byte order and rank; integers are not scaled."""
    type_, name = KINDS[kind]
    arrays = {f"s{i}": noise(*shape, dtype=dtype, seed=i) for i, dtype in enumerate(DTYPES)}
    work.save(kind, name, arrays)
    (batch,) = work.batches(False, input_type=type_, input_path="in", preload=preload, threads=2)
    assert batch.inputs.dtype == np.float32
    np.testing.assert_array_equal(batch.inputs, np.stack([array.astype(np.float32) for array in arrays.values()]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_keeps_its_type(work, kind):
    type_, name = KINDS[kind]
    work.save(kind, name, {f"s{i}": noise(2, 4, 6, dtype=">i2", seed=i) for i in range(3)})
    prepared = work.prepare(input_type=type_, input_path="in", preload=True)
    stored = np.load(Path(prepared.folder) / "inputs.npy")
    assert (stored.dtype, stored.shape) == (np.dtype("int16"), (3, 4, 6, 2))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("npy", ("g/s2.npy", "g/s10.npy", "t.npy")),
        ("npz", ("a.npz/g/s2", "a.npz/g/s10", "a.npz/t")),
        ("hdf5", ("a.h5/g/s2", "a.h5/g/s10", "a.h5/t")),
        ("zarr2", ("a.zarr/g/s2", "a.zarr/g/s10", "a.zarr/t")),
        ("zarr3", ("a.zarr/g/s2", "a.zarr/g/s10", "a.zarr/t")),
    ],
)
def test_names_and_natural_order(work, kind, names):
    type_, name = KINDS[kind]
    work.save(kind, name, {"g/s10": noise(3), "t": noise(3), "g/s2": noise(3)})
    found = work.survey(input_type=type_, input_path="in")
    assert found.names == names
    assert pickle.loads(pickle.dumps(found)) == found
    if kind != "npy":
        assert work.survey(input_type=type_, input_path=name).names == names
        assert work.survey(input_type=type_, input_path=f"{name}:/t").names == names[2:]
    if kind in ("hdf5", "zarr2", "zarr3"):
        assert work.survey(input_type=type_, input_path=f"{name}:/g").names == names[:2]


def test_single_files_and_single_arrays(work):
    work.save("npy", "one", {"a": noise(3)})
    assert work.survey(input_type="numpy", input_path="one/a.npy").names == ("a.npy",)
    zarr.save_array(str(work.folder / "b.zarr"), noise(3))
    assert work.survey(input_type="zarr", input_path="b.zarr").names == ("b.zarr",)
    assert work.survey(input_type="zarr", input_path=".").names == ("b.zarr",)


def test_fortran_order_and_scalars(work):
    array = np.asfortranarray(noise(2, 3, 4))
    work.save("npy", "in", {"a": array})
    (batch,) = work.batches(False, input_type="numpy", input_path="in")
    np.testing.assert_array_equal(batch.inputs[0], array)
    work.save("npy", "one", {"a": np.float64(3)})
    (batch,) = work.batches(False, input_type="numpy", input_path="one", preload=True)
    np.testing.assert_array_equal(batch.inputs, [[3]])


def takes_only(*shapes):
    """A network that takes samples of these shapes, and gives one channel of the same size."""
    return lambda shape: (1, *shape[1:]) if shape in shapes else None


@pytest.mark.parametrize(
    ("shape", "taken", "given"),
    [
        ((8, 6), (1, 8, 6), (1, 8, 6)),
        ((8, 6), (8, 6), (8, 6)),
        ((3, 8, 6), (1, 3, 8, 6), (1, 3, 8, 6)),
        ((3, 8, 6), (3, 8, 6), (3, 8, 6)),
        ((8,), (1, 8), (1, 8)),
        ((), (1,), (1,)),
        ((8, 6), (5, 5), (8, 6)),
    ],
)
@pytest.mark.parametrize("preload", [True, False])
def test_the_network_decides_whether_a_channel_is_missing(work, shape, taken, given, preload):
    array = noise(*shape)
    work.save("npy", "in", {"a": array})
    keys = {"input_type": "numpy", "input_path": "in", "preload": preload}
    assert work.survey(takes=takes_only(taken), **keys).sample_shape == given
    (batch,) = work.batches(False, takes=takes_only(taken), **keys)
    np.testing.assert_array_equal(batch.inputs[0], array.reshape(given))


def test_transforms_act_on_what_has_got_its_channel(work):
    array = noise(8, 6)
    work.save("npy", "in", {"a": array})
    keys = {"input_type": "numpy", "input_path": "in", "transforms": [{"center_crop": [2, 4]}]}
    (batch,) = work.batches(False, takes=takes_only((1, 4, 2)), **keys)
    np.testing.assert_array_equal(batch.inputs[0, 0], array[2:6, 2:4])


@pytest.mark.parametrize("dtype", ["u1", "u2", "i1", "i8", "f2", "f8", "bool"])
@pytest.mark.parametrize("preload", [True, False])
def test_two_dimensional_samples_take_transforms(work, dtype, preload):
    """Turned and flipped as numpy does it, normalised by channel, of any type and with more channels than colours."""
    array = noise(5, 6, 6, dtype=dtype)
    work.save("hdf5", "a.h5", {"a": array})
    mean, std = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 8.0, 16.0, 32.0]
    steps = [{"rotate": 90}, {"random_horizontal_flip": 1.0}, {"normalize": {"mean": mean, "std": std}}]
    (batch,) = work.batches(input_type="hdf5", input_path="a.h5", preload=preload, transforms=steps)
    turned = np.rot90(array.astype(np.float32), -1, axes=(1, 2))[:, :, ::-1]
    expected = (turned - np.reshape(mean, (5, 1, 1))) / np.reshape(std, (5, 1, 1))
    np.testing.assert_allclose(batch.inputs[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (2, 7), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_other_samples_are_normalised_alone(work, shape, preload, dtype):
    array = noise(*shape, dtype=dtype)
    work.save("npy", "in", {"a": array, "b": array})
    mean, std = np.arange(shape[0]), np.arange(1, shape[0] + 1)
    steps = [{"normalize": {"mean": [float(x) for x in mean], "std": [float(x) for x in std]}}]
    for batch in work.batches(input_type="numpy", input_path="in", preload=preload, transforms=steps):
        by_channel = (shape[0], *[1] * (len(shape) - 1))
        expected = (array - mean.reshape(by_channel)) / std.reshape(by_channel)
        np.testing.assert_allclose(batch.inputs[1], expected, rtol=1e-6)
    text = refusal(work, input_type="numpy", input_path="in", transforms=[{"random_horizontal_flip": 0.5}])
    assert text == (
        f"{WHERE}.transforms[0].random_horizontal_flip: acts on 2D samples, and these are {len(shape) - 1}D: "
        f"{work.folder}/in/a.npy\n"
        "    leave it out: only `normalize` goes with such samples"
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bool", "u1", ">i8", "u4", "f4", "i2"])
@pytest.mark.parametrize("preload", [True, False])
def test_masks(work, kind, dtype, preload):
    """Any numeric type that holds integers; with a channel axis or without one."""
    type_, name = KINDS[kind]
    values = np.array([0, 1] if dtype == "bool" else [3, 1, 100])
    masks = {f"s{i}": values[np.random.default_rng(i).integers(0, len(values), (4, 6))].astype(dtype) for i in range(4)}
    work.save(kind, name.replace("in", "masks"), masks)
    work.save("npy", "in", {name: noise(2, 4, 6) for name in masks})
    keys = {"input_type": "numpy", "target_type": type_, "input_path": "in", "target_path": "masks"}
    keys |= {"target_is_mask": True, "preload": preload}
    prepared = work.prepare(**keys)
    assert prepared.target == Target("mask", (4, 6))
    assert [value for value, _ in prepared.mask_values] == sorted(values)
    (batch,) = work.batches(False, mapped=tuple(sorted(values)), **keys)
    classes = {value: place for place, value in enumerate(sorted(values))}
    expected = np.stack([np.vectorize(classes.get)(mask.astype(int)) for mask in masks.values()])
    np.testing.assert_array_equal(batch.targets, expected)


def test_masks_of_volumes(work):
    mask = np.random.default_rng(0).integers(0, 3, (1, 4, 5, 6))
    work.save("npy", "masks", {"a": mask, "b": mask})
    work.save("npy", "in", {"a": noise(2, 4, 5, 6), "b": noise(2, 4, 5, 6)})
    keys = {"type": "numpy", "input_path": "in", "target_path": "masks", "target_is_mask": True}
    for preload in (True, False):
        (batch,) = work.batches(False, preload=preload, **keys)
        np.testing.assert_array_equal(batch.targets[1], mask[0])


def test_a_number_a_sample_as_values_or_classes(work):
    work.save("npz", "in.npz", {f"s{i}": noise(5, seed=i) for i in range(3)})
    work.save("npz", "t.npz", {"s0": 2.0, "s1": 0.0, "s2": 1.0})
    keys = {"type": "numpy", "input_path": "in.npz", "target_path": "t.npz"}

    def takes(shape):
        return (1,)

    assert work.survey(takes=takes, **keys).target == Target("values", (1,))
    (batch,) = work.batches(False, takes=takes, **keys)
    np.testing.assert_array_equal(batch.targets, [[2], [0], [1]])
    assert work.survey(takes=lambda shape: (3,), target_is_mask=True, **keys).target == Target("mask", ())
    (batch,) = work.batches(False, takes=lambda shape: (3,), target_is_mask=True, **keys)
    np.testing.assert_array_equal(batch.targets, [2, 0, 1])


def test_what_lies_in_two_single_files_pairs_by_the_names_inside(work):
    work.save("hdf5", "x.h5", {f"g/s{i}": np.full(3, i) for i in (1, 2, 10)})
    work.save("npz", "y.npz", {f"g/s{i}": np.full(3, i) for i in (10, 2, 1)})
    keys = {"input_type": "hdf5", "target_type": "numpy", "input_path": "x.h5", "target_path": "y.npz"}
    found = work.survey(**keys)
    assert found.warnings == ()
    (batch,) = work.batches(False, **keys)
    np.testing.assert_array_equal(batch.inputs, batch.targets)


def test_groups_are_classes(work):
    """Of a file with groups the group is the folder; a file itself is none."""
    work.save("hdf5", "a.h5", {"cats/1": noise(3), "dogs/1": noise(3), "dogs/2": noise(3)})
    found = work.survey(input_type="hdf5", target_type="labels", input_path="a.h5")
    assert (found.classes, found.labels) == (("cats", "dogs"), (0, 1, 1))
    work.save("npz", "in/cats/a.npz", {"x": noise(3)})
    work.save("npz", "in/dogs/a.npz", {"x": noise(3)})
    found = work.survey(input_type="numpy", target_type="labels", input_path="in")
    assert (found.classes, found.labels) == (("cats", "dogs"), (0, 1))


def test_a_file_that_changed_is_prepared_anew(work):
    work.save("hdf5", "a.h5", {"x": np.zeros(3)})
    zarr.save_array(str(work.folder / "b.zarr"), np.zeros(3))
    keys = {"input_type": "hdf5", "input_path": "a.h5", "preload": True}
    store = {"input_type": "zarr", "input_path": "b.zarr", "preload": True}
    before = work.prepare(**keys).folder, work.prepare(**store).folder
    # A file that somebody reads can be written to: no handle is left behind.
    with h5py.File(work.folder / "a.h5", "r+") as file:
        file["y"] = np.ones(3)
    zarr.open(str(work.folder / "b.zarr"), mode="r+")[0] = 5
    assert work.prepare(**keys).folder != before[0]
    (batch,) = work.batches(**store)
    np.testing.assert_array_equal(batch.inputs, [[5, 0, 0]])


def test_handles_are_closed_behind_an_epoch(work):
    names = [work.save("hdf5", f"in/{i}.h5", {"x": noise(3, seed=i)}) for i in range(20)]
    for threads in (0, 2):
        work.batches(input_type="hdf5", input_path="in", threads=threads)
        for name in names:
            with h5py.File(work.folder / name, "r+") as file:
                file["x"][0] = 1


def test_a_large_archive_is_read_array_by_array(work):
    """Not more than one array at a time is held, in either way of reading."""
    arrays = {f"s{i}": np.full((1, 64, 64, 64), i, np.float64) for i in range(16)}
    work.save("npz", "big.npz", arrays)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from rml_core.data import Data; from rml_core.data.survey import survey\n"
        "from rml_core.data.prepared import prepare; import numpy as np, cv2, zipfile\n"
        "data = Data(input_type='numpy', input_path='big.npz', preload=True)\n"
        "found = survey(data, 'training', Path.cwd())\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "prepare(found, data, Path('prepared'))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", program]
    held = subprocess.run(command, cwd=work.folder, check=True, capture_output=True, text=True).stdout
    # An array takes 2 MiB, all of them 32; kilobytes.
    assert int(held) < 12 * 1024


@pytest.mark.parametrize("preload", [False, True])
def test_samples_with_numbers_that_are_not_finite_are_named(work, preload):
    x = {name: np.zeros((1, 4), np.float32) for name in "abcd"}
    y = {name: np.zeros(1, np.float32) for name in "abcd"}
    x["b"][0, 1], x["c"][0, 0], y["d"][0] = np.nan, np.inf, -np.inf
    keys = {"type": "numpy", "input_path": work.save("npz", "x.npz", x), "target_path": work.save("npz", "y.npz", y)}
    samples = Samples(work.prepare(preload=preload, **keys))
    said = "numbers that are nan or infinite: mend them or leave them out"
    assert samples.broken(np.array([0])) == ""
    assert samples.broken(np.array([0, 3])) == f"{work.folder}/y.npz:/d has {said}"
    assert samples.broken(np.array([2, 0, 1])) == f"{work.folder}/x.npz:/c and 1 more of the batch have {said}"
