"""Volumes that are prepared: decoded once, or used where they lie; their values looked at by blocks."""

from __future__ import annotations

import errno
import os
import pickle
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import fsspec
import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config.problem import RunFailed
from rml_core.data import prepared_volumes
from rml_core.data.files import Form, Item
from rml_core.data.prepared import prepare
from rml_core.data.store import Single

SLICERS = [{"sizes": [8, 8, 8]}]
EVERYTHING = (slice(None),) * 3
SHAPE = (17, 20, 23)


def noise(nans=0):
    array = np.random.default_rng(0).normal(size=SHAPE).astype("f4")
    array.reshape(-1)[np.random.default_rng(1).permutation(array.size)[:nans]] = np.nan
    return array


def labels(*values):
    return np.random.default_rng(2).choice(np.asarray(values, "i2"), SHAPE)


def write(folder, nans=0, values=(0, 255, 7)):
    """The same volume in all formats, and the same mask."""
    inputs, targets = noise(nans), labels(*values)
    np.save(folder / "x.npy", inputs)
    np.save(folder / "f.npy", np.asfortranarray(inputs))
    np.save(folder / "t.npy", targets)
    with h5py.File(folder / "a.h5", "w") as file:
        file["plain"] = inputs
        file.create_dataset("x", data=inputs, chunks=(8, 8, 8), compression="gzip")
        file.create_dataset("t", data=targets, chunks=(5, 7, 11), compression="gzip", shuffle=True)
    for name, array in (("x", inputs), ("t", targets)):
        zarr.create_array(folder / f"{name}.zarr", data=array, chunks=(6, 6, 6))
    return inputs, targets


def section(kind, inputs, targets=None, **keys):
    given = {"target_path": targets, "target_is_mask": True, "target_type": kind} if targets else {}
    return {"input_type": kind, "input_path": inputs, "slicers": SLICERS, **given, **keys}


# A section, and which files of a prepared folder are volumes.
SOURCES = {
    "npy": (("numpy", "x.npy", "t.npy"), []),
    "npy, Fortran": (("numpy", "f.npy", "t.npy"), []),
    "hdf5": (("hdf5", "a.h5:/plain", "a.h5:/t"), ["targets.npy"]),
    "hdf5, chunks": (("hdf5", "a.h5:/x", "a.h5:/t"), ["inputs.npy", "targets.npy"]),
    "zarr": (("zarr", "x.zarr", "t.zarr"), ["inputs.npy", "targets.npy"]),
}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(prepared_volumes, "BLOCK", 4000)
    monkeypatch.setattr(prepared_volumes, "JOBS", 5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_volumes_are_what_they_were(work, source, preload):
    inputs, targets = write(work.folder, nans=12)
    files, stored = SOURCES[source]
    prepared = work.prepare(**section(*files, preload=preload))
    assert sorted(set(os.listdir(prepared.folder)) - {"manifest.json"}) == (stored if preload else [])
    for side, array in (("inputs", inputs), ("targets", targets)):
        volume = prepared.volume(side, 1 << 20)
        found = volume.read(EVERYTHING)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found[0], array)
        assert volume.chunks is None or not preload
    item = str(prepared.targets[0])
    assert prepared.mask_values == ((0, item), (7, item), (255, item))
    assert prepared.warnings == ((f"{prepared.inputs[0]} has 12 nan values",) if preload else ())
    assert prepared.is_whole()
    assert prepared.grids[0].count == prepared.count == 3 * 3 * 3
    assert len(pickle.dumps(prepared)) < 5000
    assert pickle.loads(pickle.dumps(prepared)) == prepared


@pytest.mark.usefixtures("small_blocks")
def test_values_are_looked_at_too(work):
    """Targets that are values are counted for nan, and have no distinct ones."""
    write(work.folder, nans=1)
    prepared = work.prepare(**section("numpy", "x.npy", "x.npy", target_is_mask=False, preload=True))
    assert prepared.warnings == (f"{work.folder}/x.npy has 1 nan value",) * 2
    assert prepared.mask_values == ()


def test_jobs_run_in_other_processes(work):
    inputs, targets = write(work.folder)
    keys = section("hdf5", "a.h5:/x", "a.h5:/t", preload=True)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        prepared = prepare(work.survey(**keys), work.section(**keys), work.folder / "p", map=pool.map)
    np.testing.assert_array_equal(prepared.volume("inputs", 0).read(EVERYTHING)[0], inputs)
    np.testing.assert_array_equal(prepared.volume("targets", 0).read(EVERYTHING)[0], targets)


@pytest.mark.usefixtures("small_blocks")
def test_each_chunk_is_decoded_once(work, monkeypatch):
    write(work.folder)
    taken = []
    opened = prepared_volumes.opened_volume

    def counting(*arguments):
        volume = opened(*arguments)
        taken.append(volume)
        return volume

    monkeypatch.setattr(prepared_volumes, "opened_volume", counting)
    with ThreadPoolExecutor(4) as pool:
        keys = section("hdf5", "a.h5:/x", preload=True)
        prepare(work.survey(**keys), work.section(**keys), work.folder / "p", map=pool.map)
    with h5py.File(work.folder / "a.h5") as file:
        assert sum(volume.bytes_read for volume in taken) == file["x"].id.get_storage_size()


def test_behind_a_url(work):
    inputs, _ = write(work.folder)
    files = fsspec.filesystem("memory")
    try:
        files.put_file(f"{work.folder}/x.npy", "/prepared/x.npy")
        keys = section("numpy", "memory://prepared/x.npy", preload=True)
        prepared = work.prepare(**keys)
        volume = prepared.volume("inputs", 0)
        assert (sorted(os.listdir(prepared.folder)), volume.chunks) == (["inputs.npy", "manifest.json"], None)
        np.testing.assert_array_equal(volume.read(EVERYTHING)[0], inputs)
    finally:
        files.rm("/prepared", recursive=True)


@pytest.fixture
def counted(work):
    """Prepares a section below one folder, and says of how many jobs."""

    def prepared(**keys):
        jobs = []

        def counting(function, given):
            jobs.extend(given)
            return map(function, given)

        found = prepare(work.survey(**keys), work.section(**keys), work.folder / "p", map=counting)
        return found, len(jobs)

    return prepared


def test_prepared_once(work, counted):
    write(work.folder)
    keys = section("hdf5", "a.h5:/x", "a.h5:/t", preload=True)
    first, jobs = counted(**keys)
    assert jobs == 2
    # Neither other slices nor other transforms nor batches ask for another volume.
    for more in ({}, {"slicers": [{"sizes": [4, 1, 4]}], "transforms": [{"resize": [4, 4]}]}, {"batch_size": 2}):
        again, jobs = counted(**{**keys, **more})
        assert (again.folder, jobs) == (first.folder, 0)
    assert counted(**{**keys, "input_path": "a.h5:/plain"})[1] == 2
    assert counted(**{**keys, "preload": False})[1] == 1


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest"])
def test_what_is_damaged_is_made_again(work, counted, damage):
    inputs, _ = write(work.folder)
    keys = section("hdf5", "a.h5:/x", preload=True)
    prepared, _ = counted(**keys)
    volume = Path(prepared.folder, "inputs.npy")
    if damage == "cut":
        os.truncate(volume, 5000)
        with pytest.raises(RunFailed) as failed:
            prepared.volume("inputs", 0)
        said = f"is cut short: {(1, *SHAPE)} of float32 takes {128 + 4 * inputs.size} bytes, and there are 5000"
        assert str(failed.value) == f"{volume}: {said}"
    elif damage == "gone":
        volume.unlink()
    else:
        Path(prepared.folder, "manifest.json").write_text("{}")
    assert not prepared.is_whole()
    again, jobs = counted(**keys)
    assert (again, jobs) == (prepared, 1)
    assert again.is_whole()
    np.testing.assert_array_equal(again.volume("inputs", 0).read(EVERYTHING)[0], inputs)


def test_a_volume_that_is_used_where_it_lies_is_looked_after(work, counted):
    write(work.folder)
    prepared, jobs = counted(**section("numpy", "x.npy", preload=True))
    assert (jobs, prepared.is_whole()) == (1, True)
    os.utime(work.folder / "x.npy", ns=(1, 1))
    assert not prepared.is_whole()
    again, jobs = counted(**section("numpy", "x.npy", preload=True))
    assert (jobs, again.is_whole()) == (1, True)
    assert again.folder != prepared.folder
    (work.folder / "x.npy").unlink()
    assert not again.is_whole()


def test_a_full_disk(work, monkeypatch):
    write(work.folder)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(prepared_volumes.shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000_000))
    with pytest.raises(RunFailed) as failed:
        work.prepare(**section("hdf5", "a.h5:/x", preload=True))
    assert str(failed.value) == (
        f"{work.folder}/a.h5:/x takes 31.3 kB decoded, and {work.folder}/prepared has 2.0 GB free: make room there, "
        "set XDG_CACHE_HOME to another folder, or leave out preload"
    )
    assert os.listdir(work.folder / "prepared") == []


def test_a_folder_that_takes_nothing(work, monkeypatch):
    write(work.folder)

    def read_only(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "posix_fallocate", read_only)
    with pytest.raises(RunFailed) as failed:
        work.prepare(**section("hdf5", "a.h5:/x", preload=True))
    assert str(failed.value) == (
        f"samples cannot be prepared in {work.folder}/prepared: Read-only file system; make room there, or set "
        "XDG_CACHE_HOME to another folder"
    )


def test_a_damaged_volume(work):
    write(work.folder)
    with h5py.File(work.folder / "a.h5") as file:
        place = file["x"].id.get_chunk_info(4)
    data = bytearray((work.folder / "a.h5").read_bytes())
    data[place.byte_offset + 20 : place.byte_offset + 60] = bytes(40)
    (work.folder / "a.h5").write_bytes(data)
    with pytest.raises(RunFailed) as failed:
        work.prepare(**section("hdf5", "a.h5:/x", preload=True))
    assert str(failed.value).startswith(f"{work.folder}/a.h5:/x: cannot be read: ")
    assert os.listdir(work.folder / "prepared") == []


def test_a_mask_with_a_value_for_each_voxel(work, monkeypatch):
    monkeypatch.setattr(prepared_volumes, "MOST_VALUES", 1000)
    np.save(work.folder / "x.npy", noise())
    np.save(work.folder / "t.npy", np.arange(noise().size, dtype="i4").reshape(SHAPE))
    with pytest.raises(RunFailed) as failed:
        work.prepare(**section("numpy", "x.npy", "t.npy"))
    assert str(failed.value) == (
        f"{work.folder}/t.npy: a mask has a value for each class, and this one has more than 1000 of them; if they "
        "number objects, make them 0 and 1 first"
    )


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["u1", "i1", "u2", "i2", "i4"]),
    values=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=9),
    size=st.integers(1, 3000),
)
def test_distinct_values(dtype, values, size):
    mask = np.random.default_rng(0).choice(np.array(values).astype(dtype), size)
    found: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared_volumes, "PIECE", 512)
        prepared_volumes._distinct(mask, found, Item("a"))
    assert sorted(found) == np.unique(mask).tolist()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple))
def test_boxes_are_put_in_their_place(tmp_path_factory, data, shape):
    folder = tmp_path_factory.mktemp("single")
    array = np.arange(np.prod(shape), dtype="u2").reshape(shape)
    block = tuple(data.draw(st.integers(1, size)) for size in shape)
    place = Single.create(folder, "a", shape, array.dtype)
    with open(place.path, "r+b") as file:
        for number in range(int(np.prod(prepared_volumes._counts(shape, block)))):
            box = prepared_volumes._box(shape, block, number)
            place.write(file.fileno(), box, array[box])
    np.testing.assert_array_equal(np.load(place.path), array)


def test_memory_is_that_of_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared_volumes, "BLOCK", 1 << 18)
    array = np.zeros((1, 64, 128, 128), "f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=array, chunks=(1, 16, 32, 32), compression="gzip")
    side = prepared_volumes.Side("inputs", Item(f"{tmp_path}/a.h5", "x"), Form("hdf5"))
    prepared_volumes.build([side], True, tmp_path, map)
    (tmp_path / "inputs.npy").unlink()
    tracemalloc.start()
    try:
        prepared_volumes.build([side], True, tmp_path, map)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 5 * (1 << 18) < array.nbytes / 3
