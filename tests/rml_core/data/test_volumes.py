"""Boxes of an array are what NumPy cuts out of it, in every format, layout and type, here and behind a URL."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np
import pytest
import zarr
from h5py import h5d, h5p, h5s, h5t
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.config import remote
from rml_core.config.problem import RunFailed
from rml_core.data import hdf5_volumes, mapped, zarr_volumes
from rml_core.data.files import Form, Item
from rml_core.data.volumes import Volume, opened_volume

Writer = Callable[[Path, np.ndarray, tuple[int, ...]], tuple[str, Item]]


def npy(path: Path, array: np.ndarray, chunk: Any) -> tuple[str, Item]:
    np.save(path / "a.npy", array)
    return "numpy", Item("a.npy")


def npy_fortran(path: Path, array: np.ndarray, chunk: Any) -> tuple[str, Item]:
    return npy(path, np.asfortranarray(array), chunk)


def npz(path: Path, array: np.ndarray, chunk: Any) -> tuple[str, Item]:
    np.savez(path / "a.npz", other=np.arange(3), a=array)
    return "numpy", Item("a.npz", "a")


def hdf5(**keys: Any) -> Writer:
    """With `chunks` True: those that are drawn."""

    def write(path: Path, array: np.ndarray, chunk: tuple[int, ...]) -> tuple[str, Item]:
        with h5py.File(path / "a.h5", "w", userblock_size=512) as file:
            given = {**keys, "chunks": chunk} if "chunks" in keys else keys
            file.create_dataset("group/a", data=array, **given)
        return "hdf5", Item("a.h5", "group/a")

    return write


def hdf5_compact(path: Path, array: np.ndarray, chunk: Any) -> tuple[str, Item]:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_layout(h5d.COMPACT)
    stored = h5t.py_create(array.dtype, logical=True)
    with h5py.File(path / "a.h5", "w") as file:
        dataset = h5d.create(file.id, b"a", stored, h5s.create_simple(array.shape), plist)
        dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(array))
    return "hdf5", Item("a.h5", "a")


def hdf5_external(path: Path, array: np.ndarray, chunk: Any) -> tuple[str, Item]:
    outside = [(str(path / "outside.raw"), 24, array.nbytes)]
    with h5py.File(path / "a.h5", "w") as file:
        file.create_dataset("a", array.shape, array.dtype, external=outside)[...] = array
    return "hdf5", Item("a.h5", "a")


def hdf5_virtual(path: Path, array: np.ndarray, chunk: Any) -> tuple[str, Item]:
    with h5py.File(path / "a.h5", "w") as file:
        layout = h5py.VirtualLayout(array.shape, array.dtype)
        for row, values in enumerate(array):
            file[f"rows/{row}"] = values
            layout[row] = h5py.VirtualSource(file[f"rows/{row}"])
        file.create_virtual_dataset("a", layout)
    return "hdf5", Item("a.h5", "a")


def hdf5_growing(path: Path, array: np.ndarray, chunk: tuple[int, ...]) -> tuple[str, Item]:
    """Its chunks are larger than the array."""
    with h5py.File(path / "a.h5", "w") as file:
        large = tuple(size + 3 for size in array.shape)
        file.create_dataset("a", data=array, chunks=large, maxshape=(None,) * array.ndim, compression="gzip")
    return "hdf5", Item("a.h5", "a")


def zarr_of(version: int, sharded: bool = False, **keys: Any) -> Writer:
    def write(path: Path, array: np.ndarray, chunk: tuple[int, ...]) -> tuple[str, Item]:
        shards = {"shards": tuple(2 * size for size in chunk)} if sharded else {}
        zarr.create_array(
            path / "a.zarr", name="group/a", data=array, chunks=chunk, zarr_format=version, **shards, **keys
        )  # fmt: skip
        return "zarr", Item("a.zarr", "group/a")

    return write


ONE_FILE: dict[str, Writer] = {
    "npy": npy,
    "npy, Fortran": npy_fortran,
    "npz": npz,
    "hdf5": hdf5(),
    "hdf5, chunks": hdf5(chunks=True),
    "hdf5, gzip": hdf5(chunks=True, compression="gzip"),
    "hdf5, gzip and shuffle": hdf5(chunks=True, compression="gzip", shuffle=True),
    "hdf5, shuffle": hdf5(chunks=True, shuffle=True),
    "hdf5, lzf": hdf5(chunks=True, compression="lzf"),
    "hdf5, checksums": hdf5(chunks=True, fletcher32=True, compression="gzip"),
    "hdf5, chunks larger than it": hdf5_growing,
    "hdf5, compact": hdf5_compact,
    "hdf5, virtual": hdf5_virtual,
}
LAYOUTS: dict[str, Writer] = {
    **ONE_FILE,
    "hdf5, external": hdf5_external,
    "zarr 2": zarr_of(2),
    "zarr 3": zarr_of(3),
    "zarr 3, plain": zarr_of(3, compressors=None),
    "zarr 3, shards": zarr_of(3, sharded=True),
}
TYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">i8", ">f4", ">f8"]


@st.composite
def cases(draw: st.DrawFn, types: list[str] = TYPES) -> tuple[np.ndarray, tuple[int, ...], list[tuple[slice, ...]]]:
    """An array (C, *space), its chunks, and boxes of space in it."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=4)))
    dtype = np.dtype(draw(st.sampled_from(types)))
    noise = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 100, shape)
    chunk = tuple(draw(st.integers(1, size)) for size in shape)

    def part(size: int) -> slice:
        start = draw(st.integers(0, size))
        return slice(start, draw(st.integers(start, size)))

    boxes = [tuple(part(size) for size in shape[1:]) for _ in range(3)]
    return (noise > 50 if dtype.kind == "b" else noise).astype(dtype), chunk, boxes


def check(volume: Volume, array: np.ndarray, boxes: list[tuple[slice, ...]]) -> None:
    try:
        assert volume.shape == array.shape
        assert volume.dtype == array.dtype.newbyteorder("=")
        for box in [*boxes, (slice(None),) * (array.ndim - 1)]:
            for channels in (slice(None), slice(array.shape[0] // 2, array.shape[0])):
                found = volume.read(box, channels)
                assert found.dtype == volume.dtype
                np.testing.assert_array_equal(found, array[(channels, *box)])
    finally:
        volume.close()


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=12, deadline=None)
@given(case=cases(), small=st.booleans(), cache=st.sampled_from([0, 200, 1 << 20]))
def test_boxes_are_what_numpy_cuts(layout, case, small, cache):
    array, chunk, boxes = case
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(hdf5_volumes, "BLOCK", 16)
            patch.setattr(hdf5_volumes, "DIRECT", 1)
            patch.setattr(hdf5_volumes, "LEAST", 1)
            patch.setattr(zarr_volumes, "LEAST", 1)
        kind, item = LAYOUTS[layout](Path(folder), array, chunk)
        check(opened_volume(Item(f"{folder}/{item.file}", item.inside), Form(kind), cache), array, boxes)


@pytest.mark.parametrize("layout", [*ONE_FILE, "zarr 2", "zarr 3, shards"])
@settings(max_examples=4, deadline=None)
@given(case=cases(), small=st.booleans())
def test_the_same_behind_a_url(layout, case, small):
    array, chunk, boxes = case
    files = fsspec.filesystem("memory")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "RANGE", 48)
        if small:
            patch.setattr(hdf5_volumes, "DIRECT", 1)
            patch.setattr(hdf5_volumes, "LEAST", 1)
        kind, item = LAYOUTS[layout](Path(folder), array, chunk)
        try:
            files.put(f"{folder}/{item.file}", f"/volumes/{item.file}", recursive=True)
            check(opened_volume(Item(f"memory://volumes/{item.file}", item.inside), Form(kind), 1 << 20), array, boxes)
        finally:
            files.rm("/volumes", recursive=True)


@pytest.mark.parametrize("layout", ["npy", "npy, Fortran", "hdf5", "hdf5, gzip", "zarr 3"])
@settings(max_examples=6, deadline=None)
@given(case=cases())
def test_a_channel_axis_is_added(layout, case):
    array, chunk, boxes = case
    with tempfile.TemporaryDirectory() as folder:
        kind, item = LAYOUTS[layout](Path(folder), array[0], chunk[1:])
        item = Item(f"{folder}/{item.file}", item.inside)
        check(opened_volume(item, Form(kind, add_channel=True), 1 << 20), array[:1], boxes)


def test_what_is_mapped_and_what_is_read_by_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_volumes, "LEAST", 1)
    monkeypatch.setattr(zarr_volumes, "LEAST", 1)
    array = np.zeros((2, 4, 6, 8), "f4")
    expected = {
        **dict.fromkeys(("npy", "npy, Fortran", "npz", "hdf5"), None),
        **dict.fromkeys(("hdf5, virtual", "hdf5, compact", "hdf5, external"), (2, 4, 6, 8)),
        **dict.fromkeys(("hdf5, gzip", "zarr 2", "zarr 3, shards"), (1, 2, 3, 4)),
    }
    found = {}
    for number, layout in enumerate(expected):
        folder = tmp_path / str(number)
        folder.mkdir()
        kind, item = LAYOUTS[layout](folder, array, (1, 2, 3, 4))
        volume = opened_volume(Item(f"{folder}/{item.file}", item.inside), Form(kind), 0)
        found[layout] = volume.chunks
        assert volume.fortran == (layout == "npy, Fortran")
        assert (volume.chunks is None) == np.shares_memory(*[volume.read((slice(0, 2),) * 3) for _ in range(2)])
        volume.close()
    assert found == expected


def test_chunks_that_cost_more_to_ask_for_than_to_read_come_together(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("small", (1, 100, 100, 100), "f4", chunks=(1, 10, 10, 10))
        file.create_dataset("large", (1, 100, 100, 100), "f4", chunks=(1, 64, 64, 64))
    chunks = [opened_volume(Item(f"{tmp_path}/a.h5", name), Form("hdf5"), 0).chunks for name in ("small", "large")]
    assert chunks == [(1, 10, 60, 100), (1, 64, 64, 64)]


@pytest.mark.parametrize("layout", [{}, {"chunks": (2, 3, 4)}, {"chunks": (2, 3, 4), "compression": "gzip"}])
@pytest.mark.parametrize("direct", [1, 1 << 13])
def test_what_was_never_written_has_the_fill_value(tmp_path, monkeypatch, layout, direct):
    monkeypatch.setattr(hdf5_volumes, "LEAST", 1)
    monkeypatch.setattr(hdf5_volumes, "DIRECT", direct)
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file.create_dataset("a", (5, 6, 7), "f4", fillvalue=3, **layout)
        if layout:
            file["a"][0, 0, 0] = 1
        expected = file["a"][...]
    volume = opened_volume(Item(f"{tmp_path}/a.h5", "a"), Form("hdf5", add_channel=True), 0)
    np.testing.assert_array_equal(volume.read((slice(None),) * 3)[0], expected)


@pytest.mark.parametrize("skipped", [0, 1, 2, 3])
def test_chunks_whose_filters_were_left_out(tmp_path, monkeypatch, skipped):
    import zlib

    monkeypatch.setattr(hdf5_volumes, "DIRECT", 1)
    array = np.arange(24, dtype="<u4").reshape(4, 6)
    data = array.tobytes()
    if not skipped & 1:
        data = np.frombuffer(data, np.uint8).reshape(-1, 4).T.tobytes()
    if not skipped & 2:
        data = zlib.compress(data)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", (4, 6), "<u4", chunks=(4, 6), compression="gzip", shuffle=True)
        dataset.id.write_direct_chunk((0, 0), data, skipped)
    volume = opened_volume(Item(f"{tmp_path}/a.h5", "a"), Form("hdf5"), 0)
    np.testing.assert_array_equal(volume.read((slice(None),)), array)


def test_types_that_numpy_has_not_are_hdf5_s_to_convert(tmp_path):
    twelve_bits = h5t.STD_U16LE.copy()
    twelve_bits.set_precision(12)
    twelve_bits.set_offset(2)
    array = np.arange(24, dtype="u2").reshape(4, 6) * 170
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = h5d.create(file.id, b"a", twelve_bits, h5s.create_simple(array.shape))
        dataset.write(h5s.ALL, h5s.ALL, array)
    volume = opened_volume(Item(f"{tmp_path}/a.h5", "a"), Form("hdf5"), 0)
    np.testing.assert_array_equal(volume.read((slice(1, 5),)), array[:, 1:5])


def test_long_doubles_become_doubles(tmp_path):
    array = np.arange(24, dtype=np.longdouble).reshape(4, 6)
    np.save(tmp_path / "a.npy", array)
    volume = opened_volume(Item(f"{tmp_path}/a.npy"), Form("numpy"), 0)
    assert (volume.dtype, volume.read((slice(2, 3),)).dtype) == (np.float64, np.float64)
    np.testing.assert_array_equal(volume.read((slice(2, 3),)), array[:, 2:3])


MASKS = {"?": "u1", "f4": "i4", ">f2": "i4", "i8": "i4", "u4": "i4", "u1": "u1", ">i2": "i2"}


@pytest.mark.parametrize(("stored", "taken"), MASKS.items())
@pytest.mark.parametrize("layout", ["npy", "hdf5", "hdf5, gzip", "zarr 3"])
def test_masks_are_small_integers(tmp_path, layout, stored, taken):
    array = np.array([[[0, 1, 1], [1, 0, 1]]]).astype(stored)
    kind, item = LAYOUTS[layout](tmp_path, array, (1, 2, 2))
    volume = opened_volume(Item(f"{tmp_path}/{item.file}", item.inside), Form(kind, mask=True), 0)
    found = volume.read((slice(None), slice(1, 3)))
    assert volume.dtype == found.dtype == np.dtype(taken)
    np.testing.assert_array_equal(found, array[:, :, 1:].astype(taken))


def test_a_mask_with_fractions(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0, 0.5], [1, 2]]))
    volume = opened_volume(Item(f"{tmp_path}/a.npy"), Form("numpy", add_channel=True, mask=True), 0)
    assert volume.read((slice(1, 2), slice(None))).tolist() == [[[1, 2]]]
    with pytest.raises(RunFailed) as failed:
        volume.read((slice(None), slice(None)))
    assert str(failed.value) == f"{tmp_path}/a.npy: a mask holds integers, this one has fractions"


def test_chunks_behind_a_url_are_asked_for_at_once(tmp_path, monkeypatch):
    """By their places in the file: HDF5 itself waits for each before it asks for the next."""
    monkeypatch.setattr(hdf5_volumes, "LEAST", 1)
    monkeypatch.setattr(hdf5_volumes, "DIRECT", 1)
    array = np.arange(2048, dtype="f4").reshape(1, 32, 64)
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        dataset = file.create_dataset("a", array.shape, "f4", chunks=(1, 8, 64), compression="gzip", fillvalue=7)
        dataset[:, :24] = array[:, :24]
    files, barrier = fsspec.filesystem("memory"), threading.Barrier(3, timeout=10)
    asked = remote.Ranges.read

    def together(self, start, stop):
        barrier.wait()
        return asked(self, start, stop)

    monkeypatch.setattr(remote.Ranges, "read", together)
    try:
        files.put_file(f"{tmp_path}/a.h5", "/chunks/a.h5")
        volume = opened_volume(Item("memory://chunks/a.h5", "a"), Form("hdf5"), 0)
        found = volume.read((slice(None), slice(None)))
        volume.close()
    finally:
        files.rm("/chunks", recursive=True)
    np.testing.assert_array_equal(found[:, :24], array[:, :24])
    assert (found[:, 24:] == 7).all()


def test_what_is_no_box(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4)))
    volume = opened_volume(Item(f"{tmp_path}/a.npy"), Form("numpy"), 0)
    for part in (slice(0, 4, 2), slice(-1, 4), slice(2, 1), slice(0, 5)):
        with pytest.raises(ValueError, match="is no part of an axis of 4"):
            volume.read((part, slice(0, 4)))


def test_what_was_read_is_not_written_to(tmp_path):
    for layout in ("npy", "hdf5, gzip", "zarr 3"):
        kind, item = LAYOUTS[layout](tmp_path, np.ones((1, 4, 4), "f4"), (1, 2, 2))
        volume = opened_volume(Item(f"{tmp_path}/{item.file}", item.inside), Form(kind), 1 << 20)
        assert not volume.read((slice(0, 1), slice(0, 1))).flags.writeable


def test_bytes_that_were_read(tmp_path):
    """Of a mapped file whole pages, of chunks what they take in the file, once while they are kept."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 4, (1, 64, 64, 64)).astype("f4")
    np.save(tmp_path / "a.npy", array)
    volume = opened_volume(Item(f"{tmp_path}/a.npy"), Form("numpy"), 0)
    for box, pages in (
        (((0, 1), (0, 64), (0, 64)), 4),
        (((0, 64), (0, 1), (0, 64)), 64),
        (((0, 64), (0, 64), (0, 1)), 256),
    ):
        before = volume.bytes_read
        volume.read(tuple(slice(*part) for part in box))
        assert volume.bytes_read - before == pages * 4096
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=array, chunks=(1, 64, 64, 32), compression="gzip")
        stored = [file["a"].id.get_chunk_info(number).size for number in range(2)]
    chunks = [{"chunks": (1, 64, 64, 32), "shards": None}, {"chunks": (1, 64, 64, 32), "shards": (1, 64, 64, 64)}]
    volume = opened_volume(Item(f"{tmp_path}/a.h5", "a"), Form("hdf5"), array.nbytes)
    for _ in range(3):
        volume.read((slice(5, 6), slice(None), slice(None)))
    assert volume.bytes_read == sum(stored)
    for number, keys in enumerate(chunks):
        place = tmp_path / f"{number}.zarr"
        zarr.create_array(place, data=array, **keys)
        stored_bytes = sum(file.stat().st_size for file in place.rglob("c/**/*") if file.is_file())
        volume = opened_volume(Item(str(place)), Form("zarr"), array.nbytes)
        for _ in range(3):
            volume.read((slice(5, 6), slice(None), slice(None)))
        assert 0 <= volume.bytes_read - stored_bytes < 3000
