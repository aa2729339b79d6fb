"""The file: an ordinary one for every reader, there under its name only when whole, written by anybody."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array
import h5py
import numpy as np
import pyfive
import pytest
import xarray

from rml_core.assembly import layout
from rml_core.assembly.layout import Assembly, Layout, Outfile
from rml_core.config.paths import resolve
from rml_core.config.problem import RunFailed
from rml_core.slicers.grid import Axis, SliceGrid

BRICKS = SliceGrid("bricks", (Axis(5, 2, 2), Axis(6, 2, 2), Axis(7, 3, 3)))
TILES = SliceGrid("tiles/xy", (Axis(5, 1, 1), Axis(6, 2, 2), Axis(7, 3, 2, discard_remainders=True)))
VALUES = np.random.default_rng(0).standard_normal((2, 5, 6, 7), np.float32)


def whole(extent: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, length) for length in extent)


def written(path: Path, **options: Any) -> Path:
    """A file with both sets."""
    options = {"said": (("run_file", "{}"),), "slicers": ('{"sizes": [2, 2, 3]}', "{}")} | options
    outfile = Outfile(Assembly(path, (BRICKS, TILES), 2, **options))
    dtype = outfile.layout.places[0].dtype
    values = VALUES[: outfile.layout.places[0].shape[0]].astype(dtype)
    outfile.layout.write(0, whole((5, 6, 7)), values)
    outfile.layout.write(1, whole((5, 6, 7)), values)
    outfile.appear()
    return path


def test_datasets_and_what_they_say(path: Path):
    long = json.dumps({"text": "ä" * 200_000})
    written(path, said=(("run_file", long), ("checkpoint", "")))
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"run_file": long, "checkpoint": ""}
        assert list(file) == ["bricks", "tiles"]
        for name in ("bricks", "tiles/xy"):
            dataset = file[name]
            assert (dataset.shape, dataset.dtype, dataset.chunks) == ((2, 5, 6, 7), np.float32, None)
            assert [each.label for each in dataset.dims] == ["channel", "axis 0", "axis 1", "axis 2"]
            np.testing.assert_array_equal(dataset[...], VALUES)
        assert dict(file["bricks"].attrs)["slicer"] == '{"sizes": [2, 2, 3]}'
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "dtype", "shape"),
    [
        ({}, np.float32, (2, 5, 6, 7)),
        ({"precision": "half"}, np.float16, (2, 5, 6, 7)),
        ({"output": "argmax", "precision": "half"}, np.uint8, (1, 5, 6, 7)),
    ],
)
def test_types(path: Path, options: dict[str, Any], dtype: Any, shape: tuple[int, ...]):
    assembly = Assembly(path, (BRICKS,), 2, **options)
    assert assembly.nbytes == np.dtype(dtype).itemsize * np.prod(shape)
    Outfile(assembly).appear()
    with h5py.File(path) as file:
        assert (file["bricks"].dtype, file["bricks"].shape) == (dtype, shape)


@pytest.mark.parametrize(("axes", "labels"), [(1, ["axis 0"]), (3, ["axis 0", "axis 1", "axis 2"])])
def test_names_of_axes(path: Path, axes: int, labels: list[str]):
    Outfile(Assembly(path, (SliceGrid("set", (Axis(3, 2, 2),) * axes),), 1)).appear()
    with h5py.File(path) as file:
        assert [each.label for each in file["set"].dims] == ["channel", *labels]


def test_readers_that_share_no_code_with_hdf5s_library(path: Path):
    with pyfive.File(written(path)) as file:
        np.testing.assert_array_equal(file["bricks"][...], VALUES)
        np.testing.assert_array_equal(file["tiles/xy"][...], VALUES)


def test_dask_and_xarray_read_it(path: Path):
    written(path)
    with h5py.File(path) as file:
        total = dask.array.from_array(file["bricks"], chunks=(1, 2, 6, 7)).sum().compute()
    np.testing.assert_allclose(total, VALUES.sum(), rtol=1e-5)
    with xarray.open_dataset(path, engine="h5netcdf", phony_dims="sort") as opened:
        np.testing.assert_array_equal(opened["bricks"].values, VALUES)


@pytest.mark.slow
def test_hdf5s_own_tools_read_it(path: Path):
    written(path)
    for tool in ("h5dump", "h5ls"):
        assert shutil.which(tool), f"install {tool}: on Debian and Ubuntu, apt-get install hdf5-tools"
    dump = subprocess.run(["h5dump", "-H", "-p", str(path)], check=True, capture_output=True, text=True).stdout
    for said in ("H5T_IEEE_F32LE", "SIMPLE { ( 2, 5, 6, 7 ) / ( 2, 5, 6, 7 ) }", "CONTIGUOUS", 'ATTRIBUTE "slicer"'):
        assert said in dump
    listed = subprocess.run(["h5ls", "-r", str(path)], check=True, capture_output=True, text=True).stdout
    assert re.search(r"/bricks +Dataset \{2, 5, 6, 7\}", listed)
    assert re.search(r"/tiles/xy +Dataset \{2, 5, 6, 7\}", listed)
    values = subprocess.run(
        ["h5dump", "-d", "/bricks", "-y", "-w", "0", "-m", "%.9g", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    numbers = values[values.index("DATA {") + 6 : values.rindex('ATTRIBUTE "DIMENSION_LABELS')]
    found = [float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", numbers.partition("}")[0])]
    np.testing.assert_array_equal(np.float32(found), VALUES.ravel())


def test_the_same_predictions_are_the_same_bytes(path: Path):
    first = written(path).read_bytes()
    assert written(path.with_name("again.h5")).read_bytes() == first


def boxes(extent: tuple[int, ...], size: int) -> list[tuple[slice, ...]]:
    starts = np.stack(np.meshgrid(*(range(0, length, size) for length in extent)), -1).reshape(-1, len(extent))
    return [
        tuple(slice(at, min(at + size, length)) for at, length in zip(start.tolist(), extent, strict=True))
        for start in starts
    ]


def put(file: str, turn: int, mapped: bool) -> None:
    """A process that knows nothing but the file's name, and writes every second box."""
    found = Layout.of(file)
    for box in boxes((5, 6, 7), 2)[turn::2]:
        found.write(0, box, np.ascontiguousarray(VALUES[(slice(None), *box)]), mapped)


@pytest.mark.parametrize("mapped", [False, True])
def test_two_processes_write_one_file(path: Path, mapped: bool):
    outfile = Outfile(Assembly(path, (BRICKS, TILES), 2))
    assert Layout.of(outfile.layout.file) == outfile.layout
    processes = [
        multiprocessing.get_context("fork").Process(target=put, args=(outfile.layout.file, turn, mapped))
        for turn in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    outfile.appear()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["bricks"][...], VALUES)


@pytest.mark.parametrize("mapped", [False, True])
def test_boxes_of_any_shape_and_nothing_beside_them(path: Path, mapped: bool):
    outfile = Outfile(Assembly(path, (BRICKS,), 2))
    outfile.layout.write(0, whole((5, 6, 7)), VALUES)
    expected = VALUES.copy()
    random = np.random.default_rng(1)
    for _ in range(60):
        box = tuple(slice(*np.sort(random.choice(length + 1, 2, replace=False)).tolist()) for length in (5, 6, 7))
        part = random.standard_normal(expected[(slice(None), *box)].shape, np.float32)
        expected[(slice(None), *box)] = part
        outfile.layout.write(0, box, part, mapped)
    outfile.appear()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["bricks"][...], expected)


def test_a_file_of_that_name_stays_until_the_end(path: Path):
    path.write_text("the one before")
    for end in ("discard", "appear"):
        outfile = Outfile(Assembly(path, (BRICKS,), 2))
        assert path.read_text() == "the one before"
        assert len(list(path.parent.iterdir())) == 2
        getattr(outfile, end)()
        assert list(path.parent.iterdir()) == [path]
    assert h5py.is_hdf5(path)


def test_what_killed_runs_have_left_is_removed(path: Path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    gone = path.with_name(f".{path.name}.{process.pid}")
    spooled = path.with_name(f".{path.name}.spool.{process.pid}")
    spooled.mkdir()
    for left in (gone, spooled / "0-1"):
        left.write_text("half")
    running = path.with_name(f".{path.name}.{os.getppid()}")
    running.write_text("of a run that goes on")
    Outfile(Assembly(path, (BRICKS,), 2)).appear()
    assert sorted(path.parent.iterdir()) == sorted([path, running])


def test_a_disk_without_room(path: Path):
    path.write_text("the one before")
    far = SliceGrid("far", (Axis(10**5, 10, 10),) * 3)
    with pytest.raises(RunFailed) as failed:
        Outfile(Assembly(path, (far,), 2))
    said = re.escape(str(path)) + r": 8 PB are needed, [\d.]+ [kMGT]?B(ytes)? are free"
    assert re.fullmatch(said, str(failed.value))
    assert path.read_text() == "the one before"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_gives_no_room(path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunFailed, match=f"^{re.escape(str(path))}: {os.strerror(code)}$"):
        Outfile(Assembly(path, (BRICKS,), 2))
    assert list(path.parent.iterdir()) == []


def test_disks_that_reserve_nothing(path: Path, monkeypatch: pytest.MonkeyPatch):
    def cannot(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    with h5py.File(written(path)) as file:
        np.testing.assert_array_equal(file["bricks"][...], VALUES)


def test_a_folder_that_cannot_be_written(path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(RunFailed, match=f"^{re.escape(str(path))}: Permission denied$"):
        Outfile(Assembly(path, (BRICKS,), 2))


def test_behind_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = resolve("memory://assembled/prediction.h5", tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    outfile = Outfile(Assembly(url, (BRICKS,), 2), scratch)
    outfile.layout.write(0, whole((5, 6, 7)), VALUES)
    assert not url.exists()
    outfile.appear()
    with url.open("rb") as opened, h5py.File(opened) as file:
        np.testing.assert_array_equal(file["bricks"][...], VALUES)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (4 * 10**9, "4 GB"), (123456789, "123 MB")],
)
def test_sizes(count: int, text: str):
    assert layout._size(count) == text


def test_who_still_writes_to_an_earlier_file_does_no_harm(path: Path):
    """As a task of a cluster, which nobody could call back when its epoch ended."""
    assembly = Assembly(path, (BRICKS,), 1)
    earlier = Outfile(assembly)
    late = earlier.layout
    earlier.discard()
    outfile = Outfile(assembly)
    outfile.layout.write(0, whole((5, 6, 7)), VALUES[:1])
    with pytest.raises(FileNotFoundError):
        Layout(late.file, late.places).write(0, whole((5, 6, 7)), VALUES[1:])
    outfile.appear()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["bricks"][...], VALUES[:1])
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(path: Path):
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    outfile = Outfile(Assembly(path, (BRICKS,), 1))
    outfile.layout.release()
    unfinished = Path(outfile.layout.file)
    left = unfinished.rename(unfinished.with_suffix(f".{gone.pid}"))
    other = path.with_name(f".{path.name}.0123456789ab.{os.getppid()}")
    other.touch()
    Outfile(Assembly(path, (BRICKS,), 1)).discard()
    assert not left.exists()
    assert other.exists()
