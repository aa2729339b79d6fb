"""Volumes that cannot be read, at once or any more, each with the whole text of what is said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
import zarr
from h5py import h5d, h5p, h5s, h5t, h5z

from rml_core.config.problem import Refused, RunFailed
from rml_core.data import hdf5_volumes
from rml_core.data.files import Form, Item
from rml_core.data.volumes import Volume, opened_volume

ARRAY = np.random.default_rng(0).integers(0, 9, (1, 16, 16, 16)).astype("f4")
# What HDF5 says of any filter that fails.
FILTER_FAILED = "filter returned failure during read"
EVERYTHING = (slice(None),) * 3


def opened(kind: str, item: Item) -> Volume:
    return opened_volume(item, Form(kind), 0)


def failure(kind: str, item: Item) -> str:
    """What is said on opening, or on reading all."""
    with pytest.raises(RunFailed) as failed:
        opened(kind, item).read(EVERYTHING)
    return str(failed.value)


def filtered(path: Path, code: int) -> Item:
    """A dataset whose chunks went through a filter that is not here."""
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk(ARRAY.shape)
    plist.set_filter(code, h5z.FLAG_OPTIONAL, ())
    with h5py.File(path / "a.h5", "w") as file:
        dataset = h5d.create(file.id, b"a", h5t.NATIVE_FLOAT, h5s.create_simple(ARRAY.shape), plist)
        dataset.write_direct_chunk((0, 0, 0, 0), b"compressed", 0)
    return Item(f"{path}/a.h5", "a")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (32015, "zstd (HDF5 filter 32015), which is not installed: pip install hdf5plugin"),
        (32001, "blosc (HDF5 filter 32001), which is not installed: pip install hdf5plugin"),
        (
            32123,
            "a filter (HDF5 filter 32123), which is not installed: install its plugin, and name its folder in "
            "HDF5_PLUGIN_PATH",
        ),
    ],
)
def test_a_filter_that_is_missing(tmp_path, code, said):
    assert failure("hdf5", filtered(tmp_path, code)) == f"{tmp_path}/a.h5:/a: is compressed with {said}"


def test_it_is_refused_before_any_work(work):
    filtered(work.folder, 32015)
    with pytest.raises(Refused) as refused:
        work.survey(type="hdf5", input_path="a.h5", slicers=[{"sizes": [8, 8, 8]}])
    assert str(refused.value) == (
        f"neural_network.data.input_path: {work.folder}/a.h5:/a: is compressed with zstd (HDF5 filter 32015), which is "
        "not installed: pip install hdf5plugin"
    )


CODECS = {
    2: (".zarray", ("compressor",), {"id": "imagecodecs_jpegxl"}, "imagecodecs_jpegxl", "pip install imagecodecs"),
    3: ("zarr.json", ("codecs", -1), {"name": "own", "configuration": {}}, "own", "install the package that has it"),
}


@pytest.mark.parametrize("version", CODECS)
def test_a_codec_that_is_missing(tmp_path, version):
    file, keys, codec, name, remedy = CODECS[version]
    zarr.create_array(tmp_path / "a.zarr", name="a", data=ARRAY, zarr_format=version)
    metadata = json.loads((tmp_path / "a.zarr/a" / file).read_text())
    place = metadata
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = codec
    (tmp_path / "a.zarr/a" / file).write_text(json.dumps(metadata))
    said = f"is compressed with {name}, which is not installed: {remedy}"
    assert failure("zarr", Item(f"{tmp_path}/a.zarr", "a")) == f"{tmp_path}/a.zarr: {said}"


def test_an_archive_that_is_compressed(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=ARRAY)
    assert failure("numpy", Item(f"{tmp_path}/a.npz", "a")) == (
        f"{tmp_path}/a.npz:/a: is compressed as a whole, and slices are read from any place of it: save it with "
        "np.save, or np.savez"
    )


def write(kind: str, folder: Path) -> Item:
    """`ARRAY`, as long as its file, but for a header."""
    if kind == "npy":
        np.save(folder / "a.npy", ARRAY)
        return Item(f"{folder}/a.npy")
    if kind == "npz":
        np.savez(folder / "a.npz", a=ARRAY)
        return Item(f"{folder}/a.npz", "a")
    keys = {"hdf5, chunks": {"chunks": (1, 8, 8, 8)}}.get(kind, {})
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("a", data=ARRAY, **keys)
    return Item(f"{folder}/a.h5", "a")


TYPES = {"npy": "numpy", "npz": "numpy", "hdf5": "hdf5", "hdf5, chunks": "hdf5"}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("npy", "is cut short: (1, 16, 16, 16) of float32 takes 16512 bytes, and there are 8192"),
        ("npz", "is cut short, or no .npz file"),
        ("hdf5", "cannot be read: truncated file: eof = 8192, sblock->base_addr = 0, stored_eof = {size}"),
        ("hdf5, chunks", "cannot be read: truncated file: eof = 8192, sblock->base_addr = 0, stored_eof = {size}"),
    ],
)
def test_a_file_that_is_cut_short(tmp_path, kind, said):
    item = write(kind, tmp_path)
    size = os.stat(item.file).st_size
    os.truncate(item.file, 8192)
    place = item.file if TYPES[kind] == "hdf5" else item
    assert failure(TYPES[kind], item) == f"{place}: {said.format(size=size)}"


@pytest.mark.parametrize("kind", ["npy", "npz", "hdf5"])
def test_a_file_that_shrinks_while_it_is_read(tmp_path, kind):
    """An error instead of the signal that ends a process where it touches pages that are gone."""
    item = write(kind, tmp_path)
    volume = opened(TYPES[kind], item)
    end = volume._source._end
    np.testing.assert_array_equal(volume.read(EVERYTHING), ARRAY)
    os.truncate(item.file, 8192)
    with pytest.raises(RunFailed) as failed:
        volume.read((slice(0, 1), slice(0, 1), slice(0, 1)))
    assert str(failed.value) == f"{item}: is cut short: it takes {end} bytes, and there are 8192"


def test_a_chunked_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_volumes, "LEAST", 1)
    item = write("hdf5, chunks", tmp_path)
    volume, size = opened("hdf5", item), os.stat(item.file).st_size
    os.truncate(item.file, 8192)
    with pytest.raises(RunFailed) as failed:
        volume.read(EVERYTHING)
    assert str(failed.value) == f"{item}: is cut short: it had {size} bytes, and there are 8192"


def test_a_file_that_vanishes(tmp_path):
    item = write("npy", tmp_path)
    volume = opened("numpy", item)
    os.unlink(item.file)
    np.testing.assert_array_equal(volume.read(EVERYTHING), ARRAY)
    assert failure("numpy", item) == f"{item}: cannot be read: No such file or directory"


@pytest.mark.parametrize("direct", [1, 1 << 30])
def test_a_damaged_chunk_of_hdf5(tmp_path, monkeypatch, direct):
    monkeypatch.setattr(hdf5_volumes, "LEAST", 1)
    monkeypatch.setattr(hdf5_volumes, "DIRECT", direct)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", data=ARRAY, chunks=(1, 8, 8, 8), compression="gzip")
        place = dataset.id.get_chunk_info_by_coord((0, 8, 0, 8))
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[place.byte_offset + 20 : place.byte_offset + 60] = bytes(40)
    (tmp_path / "a.h5").write_bytes(data)
    where = ": the chunk at (0, 8, 0, 8) is damaged" if direct == 1 else ""
    volume = opened("hdf5", Item(f"{tmp_path}/a.h5", "a"))
    np.testing.assert_array_equal(volume.read((slice(8), slice(None), slice(None))), ARRAY[:, :8])
    with pytest.raises(RunFailed) as failed:
        volume.read(EVERYTHING)
    assert str(failed.value) == f"{tmp_path}/a.h5:/a: cannot be read: {FILTER_FAILED}{where}"


def test_a_damaged_checksum_of_hdf5(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_volumes, "DIRECT", 1)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", data=ARRAY, chunks=ARRAY.shape, fletcher32=True)
        place = dataset.id.get_chunk_info(0)
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[place.byte_offset + 2] ^= 255
    (tmp_path / "a.h5").write_bytes(data)
    assert failure("hdf5", Item(f"{tmp_path}/a.h5", "a")) == f"{tmp_path}/a.h5:/a: cannot be read: {FILTER_FAILED}"


@pytest.mark.parametrize("keys", [{}, {"shards": (1, 16, 16, 16)}])
def test_a_damaged_chunk_of_zarr(tmp_path, keys):
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY, chunks=(1, 8, 16, 16), **keys)
    for file in (tmp_path / "a.zarr/c").rglob("*"):
        if file.is_file():
            data = bytearray(file.read_bytes())
            data[10:40] = bytes(30)
            file.write_bytes(data)
    said = failure("zarr", Item(f"{tmp_path}/a.zarr"))
    assert said.startswith(f"{tmp_path}/a.zarr: the chunk at (0, 0, 0, 0) cannot be read: ")
    assert len(said.splitlines()) == 1


def test_a_file_behind_a_url_that_has_become_shorter(tmp_path):
    write("npy", tmp_path)
    files = fsspec.filesystem("memory")
    try:
        files.put_file(f"{tmp_path}/a.npy", "/short/a.npy")
        volume = opened("numpy", Item("memory://short/a.npy"))
        files.pipe_file("/short/a.npy", (tmp_path / "a.npy").read_bytes()[:8192])
        with pytest.raises(RunFailed) as failed:
            volume.read(EVERYTHING)
    finally:
        files.rm("/short", recursive=True)
    assert str(failed.value) == ("memory://short/a.npy: is cut short: bytes 128 to 16512 were asked for, and 8064 came")
