from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyfive
import pytest
import torch

from rml_core.config.problem import RunFailed
from rml_core.engine.predictions import Predictions

NAMES = ["cats/a.jpg", "cats/b.jpg", "dogs/a.jpg"]


def test_a_dataset_a_sample_by_its_path(tmp_path: Path):
    outputs = torch.arange(3 * 2 * 4 * 5, dtype=torch.float64).reshape(3, 2, 4, 5)
    path = tmp_path / "new" / "output_1.h5"
    with Predictions(path, NAMES) as predictions:
        # In any order, in any memory format, of any type.
        predictions.add(np.array([2, 0]), outputs[[2, 0]].to(memory_format=torch.channels_last))
        assert not path.exists()
        predictions.add(np.array([1]), outputs[1:2].to(torch.bfloat16))
    with h5py.File(path) as file:
        assert sorted(file) == ["cats", "dogs"]
        for index, name in enumerate(NAMES):
            assert file[name].dtype == np.float32
            assert file[name].shape == (2, 4, 5)
            assert np.array_equal(
                file[name][()], outputs[index].to(torch.bfloat16 if index == 1 else torch.float32).float()
            )
    assert list(path.parent.iterdir()) == [path]


def test_very_many_samples_of_any_name(tmp_path: Path):
    names = [f"c{i % 7}/ä{i:05d}.png" for i in range(10_000)]
    outputs = torch.arange(20_000.0).reshape(10_000, 2)
    with Predictions(tmp_path / "o.h5", names) as predictions:
        for at in range(0, 10_000, 100):
            predictions.add(range(at, at + 100), outputs[at : at + 100])
    with h5py.File(tmp_path / "o.h5") as file:
        assert sum(len(file[group]) for group in file) == 10_000
        for index in (0, 7, 9_999):
            assert file[names[index]][()].tolist() == outputs[index].tolist()


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """The predictions of two samples, one of them in a group."""
    with Predictions(tmp_path / "o.h5", ["a.npz/x", "00001"]) as predictions:
        predictions.add(range(2), torch.tensor([[0.5, 1.0], [2.0, 3.0]]))
    return tmp_path / "o.h5"


def test_a_reader_that_shares_no_code_with_hdf5s_library_reads_it(two: Path):
    with pyfive.File(two) as file:
        assert sorted(file) == ["00001", "a.npz"]
        dataset = file["a.npz/x"]
        assert (dataset.dtype, dataset.shape, dataset[()].tolist()) == (np.dtype("<f4"), (2,), [0.5, 1.0])
        assert file["00001"][()].tolist() == [2.0, 3.0]


@pytest.mark.slow
def test_h5dump_reads_it(two: Path):
    assert shutil.which("h5dump"), "install h5dump: on Debian and Ubuntu, apt-get install hdf5-tools"
    command = ["h5dump", "-d", "/a.npz/x", str(two)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "DATATYPE  H5T_IEEE_F32LE" in text
    assert "SIMPLE { ( 2 ) / ( 2 ) }" in text
    assert "(0): 0.5, 1" in text


def test_the_same_predictions_are_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        with Predictions(tmp_path / name, NAMES) as predictions:
            predictions.add(range(3), torch.ones(3, 7))
        with h5py.File(tmp_path / name) as file:
            assert h5py.h5o.get_info(file[NAMES[0]].id).mtime == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_vectors(tmp_path: Path):
    with Predictions(tmp_path / "o.h5", NAMES) as predictions:
        predictions.add(range(3), torch.ones(3, 7))
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["cats/a.jpg"].shape == (7,)


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with Predictions(None, NAMES) as predictions:
        predictions.add(range(3), torch.ones(3, 7))
        predictions.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_file_stays_until_the_new_one_is_whole(tmp_path: Path):
    path = tmp_path / "output_1.h5"
    path.write_text("earlier")
    with pytest.raises(IndexError), Predictions(path, NAMES) as predictions:
        predictions.add([0, 9], torch.ones(2, 7))
    with Predictions(path, NAMES) as predictions:
        predictions.add(range(3), torch.ones(3, 7))
        predictions.discard()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
    with Predictions(path, NAMES) as predictions:
        predictions.add(range(3), torch.ones(3, 7))
    assert h5py.is_hdf5(path)


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / f".output_1.h5.{process.pid}").write_bytes(b"half")
    alive = tmp_path / f".output_1.h5.{os.getppid()}"
    alive.touch()
    with Predictions(tmp_path / "output_1.h5", NAMES):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "output_1.h5"]


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "output_1.h5"
    with pytest.raises(RunFailed) as failed, Predictions(path, NAMES):
        pytest.fail("opened")
    assert str(failed.value) == f"{path}: File exists"


FILLING = """
import resource, signal, sys
from pathlib import Path
import torch
from rml_core.config.problem import RunFailed
from rml_core.engine.predictions import Predictions

path = Path(sys.argv[1])
names = [f"{index}.png" for index in range(40)]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for limit in (0, 100, 3000, 20_000, 100_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        with Predictions(path, names) as predictions:
            for index in range(40):
                predictions.add([index], torch.ones(1, 4096))
    except RunFailed as failed:
        assert str(failed) == f"{path}: File too large", failed
    else:
        raise AssertionError(f"{limit} bytes were enough")
    assert list(path.parent.iterdir()) == [], limit
"""


def test_a_disk_that_fills_anywhere(tmp_path: Path):
    command = [sys.executable, "-c", FILLING, str(tmp_path / "output_1.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
