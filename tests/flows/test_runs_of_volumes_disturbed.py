"""Runs on volumes that are killed, interrupted, or find the world changed: nothing torn, nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flows.phases import execute
from rml_core.assembly import layout
from rml_core.assembly.writer import Assembler
from rml_core.check import check
from rml_core.config.problem import RunFailed
from rml_core.data.slice_making import Maker
from rml_core.run import read

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]
Section = dict[str, Any]

RML = Path(sys.executable).with_name("rml")
RANDOM = np.random.default_rng(0)
SHAPE = (24, 24, 24)


def section(**data: Any) -> Section:
    """The identity, 27 blocks in 27 batches."""
    return {
        "layers": [{"class_name": "Activation", "config": {"activation": "linear"}}],
        "data": {
            "input_type": "numpy",
            "test_input_path": "volume.npy",
            "test_batch_size": 1,
            "slicers": [{"name": "bricks", "sizes": [8, 8, 8]}],
            "hdf5_outfile": "prediction.h5",
            **data,
        },
    }


@pytest.fixture
def volume(tmp_path: Path) -> np.ndarray:
    made = RANDOM.random(SHAPE).astype(np.float32)
    np.save(tmp_path / "volume.npy", made)
    return made


@pytest.fixture
def before(tmp_path: Path) -> bytes:
    """What an earlier run has left."""
    content = b"the prediction of an earlier run"
    (tmp_path / "prediction.h5").write_bytes(content)
    return content


def left(folder: Path) -> set[str]:
    """The files of the run, but for what it was given."""
    return {each.name for each in folder.iterdir()} - {"volume.npy", "run.json"}


def prediction(folder: Path) -> np.ndarray:
    with h5py.File(folder / "prediction.h5") as file:
        found: np.ndarray = file["bricks"][0]
    return found


def disturbed(section: Section, folder: Path, phase: str, disturb: Callable[[], None]) -> Any:
    """Runs `section`; `disturb` is called before `phase`."""

    def do(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        if name == phase:
            disturb()
        return function(*arguments)

    return execute(check(read({"neural_network": section}, folder)), do)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_run_that_is_stopped_half_way_leaves_what_was_there_and_can_be_run_again(
    number: signal.Signals, before: bytes, rml: Rml, run_file: RunFile, tmp_path: Path
):
    """The volume is large, and all of it holes: the run is met in the middle."""
    shape = (1024, 256, 256)
    with h5py.File(tmp_path / "volume.h5", "w") as file:
        file.create_dataset("volume", shape, np.float32)
    large = section(input_type="hdf5", test_input_path="volume.h5", slicers=[{"name": "bricks", "sizes": [1, 16, 16]}])
    file = run_file({"neural_network": large})
    process = subprocess.Popen([RML, "run", file, "--untracked"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not [each for each in left(tmp_path) if each.startswith(".prediction")]:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(number)
    _, problems = process.communicate(timeout=60)
    expected = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}
    assert (process.returncode, problems) == (expected[number], b"interrupted\n" if number != signal.SIGKILL else b"")
    assert (tmp_path / "prediction.h5").read_bytes() == before
    if number != signal.SIGKILL:
        assert left(tmp_path) == {"prediction.h5", "volume.h5"}

    with h5py.File(tmp_path / "volume.h5", "w") as again:
        again["volume"] = small = RANDOM.random(SHAPE).astype(np.float32)
    assert rml("run", file, "--untracked")[::2] == (0, "")
    np.testing.assert_array_equal(prediction(tmp_path), small)
    assert left(tmp_path) == {"prediction.h5", "prediction_sections.png", "volume.h5"}


def test_a_volume_that_shrinks_is_told(volume: np.ndarray, before: bytes, tmp_path: Path):
    with pytest.raises(RunFailed) as failed:
        disturbed(section(), tmp_path, "evaluate epoch 1", lambda: os.truncate(tmp_path / "volume.npy", 20_000))
    assert str(failed.value).startswith(f"evaluate epoch 1: {tmp_path}/volume.npy")
    assert "\n" not in str(failed.value)
    assert (tmp_path / "prediction.h5").read_bytes() == before
    assert left(tmp_path) == {"prediction.h5"}


@pytest.mark.parametrize("kind", ["mapped", "compressed"])
def test_a_volume_that_shrinks_while_it_is_evaluated_is_told(
    kind: str, before: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a volume that is mapped no page behind its end is touched: that would end the process."""
    large, volumes = RANDOM.random((64, 64, 64)).astype(np.float32), {"mapped": "volume.npy", "compressed": "volume.h5"}
    file, item, verb = tmp_path / volumes[kind], volumes[kind], "takes"
    if kind == "mapped":
        np.save(file, large)
        changed = section()
    else:
        with h5py.File(file, "w") as made:
            made.create_dataset("volume", data=large, chunks=(8, 64, 64), compression="gzip")
        changed = section(input_type="hdf5", test_input_path="volume.h5")
        item, verb = "volume.h5:/volume", "had"
    size, calls, reads = file.stat().st_size, count(1), Maker.reads

    def shrink(*arguments: Any) -> Any:
        """While the first batches are evaluated."""
        if next(calls) == 9:
            os.truncate(file, 20_000)
        return reads(*arguments)

    # In the one thread that reads: between its look at the size and its copy nothing happens.
    monkeypatch.setenv("RML_THREADS", "1")
    monkeypatch.setattr(Maker, "reads", shrink)
    with pytest.raises(RunFailed) as failed:
        disturbed(changed, tmp_path, "", lambda: None)
    assert str(failed.value) == (
        f"evaluate epoch 1: {tmp_path}/{item}: is cut short: it {verb} {size} bytes, and there are 20000"
    )
    assert (tmp_path / "prediction.h5").read_bytes() == before
    assert left(tmp_path) - {"volume.h5"} == {"prediction.h5"}


def test_a_disk_that_is_too_small_is_told_before_any_work(before: bytes, rml: Rml, run_file: RunFile, tmp_path: Path):
    """The volume has eight terabytes, all of them holes."""
    header = np.lib.format.header_data_from_array_1_0(np.empty((1, 1, 1), np.float32))
    with (tmp_path / "volume.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (16384, 16384, 8192)})
        file.truncate(file.tell() + 16384 * 16384 * 8192 * 4)
    run_json = run_file({"neural_network": section(slicers=[{"sizes": [64, 64, 64]}])})
    status, said, problems = rml("run", run_json, "--untracked")
    assert (status, said) == (2, "")
    free = re.search(r"needed, ([\d.]+ [kMGT]B) are free", problems)
    assert free is not None
    assert problems == (
        f"{run_json}: 1 problem\n\n"
        f"neural_network.data.hdf5_outfile: {tmp_path}/prediction.h5: 8.8 TB are needed, {free[1]} are free\n"
        "    make room there, choose another place, or take half precision or classes (hdf5_output)\n"
    )
    assert left(tmp_path) == {"prediction.h5"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder in which files have room for 40 kB."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        yield tmp_path
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_fills_up_is_told_and_nothing_torn_stays(volume: np.ndarray, before: bytes, small_disk: Path):
    with pytest.raises(RunFailed) as failed:
        disturbed(section(), small_disk, "", lambda: None)
    assert str(failed.value).startswith(f"evaluate epoch 1: {small_disk}/prediction.h5: ")
    assert "File too large" in str(failed.value)
    assert (small_disk / "prediction.h5").read_bytes() == before
    assert left(small_disk) == {"prediction.h5"}


def test_a_disk_that_fills_up_while_predictions_are_written_is_told(
    volume: np.ndarray, before: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The file system cannot keep room for a file, and the file may be no longer once its header is there."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    add = Assembler.add

    def fill(*arguments: Any) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        add(*arguments)

    def cannot(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    monkeypatch.setattr(Assembler, "add", fill)
    # Short runs would be stored through a map of the file.
    monkeypatch.setattr(layout, "SHORT", 0)
    try:
        with pytest.raises(RunFailed) as failed:
            disturbed(section(), tmp_path, "", lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert re.sub("^(evaluate epoch 1|assemble prediction.h5)", "phase", str(failed.value)) == (
        f"phase: {tmp_path}/prediction.h5: File too large"
    )
    assert (tmp_path / "prediction.h5").read_bytes() == before
    assert left(tmp_path) == {"prediction.h5"}


@pytest.mark.parametrize("place", ["folder/prediction.h5", "folder/of/its/own/prediction.h5"])
def test_a_folder_that_cannot_be_written_to_is_refused(
    place: str, volume: np.ndarray, run_file: RunFile, tmp_path: Path
):
    """Root has to go without the right to write anywhere."""
    (tmp_path / "folder").mkdir(mode=0o555)
    file = run_file({"neural_network": section(hdf5_outfile=place)})
    as_others = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    ended = subprocess.run([*as_others, RML, "run", file, "--untracked"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"{file}: 1 problem\n\n"
        f"neural_network.data.hdf5_outfile: {tmp_path}/{place} cannot be written: permission denied\n"
        "    choose another place, or make this one writable\n"
    )
    assert left(tmp_path) == {"folder"}
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize(
    ("place", "why"), [("volume.npy/prediction.h5", "volume.npy is a file"), ("folder", "is a directory")]
)
def test_a_place_that_takes_no_file_is_refused(
    place: str, why: str, volume: np.ndarray, rml: Rml, run_file: RunFile, tmp_path: Path
):
    (tmp_path / "folder").mkdir()
    file = run_file({"neural_network": section(hdf5_outfile=place)})
    status, said, problems = rml("run", file, "--untracked")
    assert (status, said) == (2, "")
    why = f"{tmp_path}/{why}" if "file" in why else why
    assert problems == (
        f"{file}: 1 problem\n\n"
        f"neural_network.data.hdf5_outfile: {tmp_path}/{place} cannot be written: {why}\n"
        "    choose another place, or make this one writable\n"
    )


def test_two_runs_do_not_write_to_one_file(volume: np.ndarray, rml: Rml, run_file: RunFile, tmp_path: Path):
    file = run_file({"neural_network": section()})
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        done.wait(30)

    other = threading.Thread(target=disturbed, args=(section(), tmp_path, "evaluate epoch 1", hold))
    other.start()
    try:
        assert inside.wait(30)
        status, _, problems = rml("run", file, "--untracked")
    finally:
        done.set()
        other.join()
    assert status == 2
    assert f"another run is writing to {tmp_path}/prediction.h5" in problems
    np.testing.assert_array_equal(prediction(tmp_path), volume)


def test_an_epoch_that_is_evaluated_again_is_assembled_again(volume: np.ndarray, tmp_path: Path):
    """Killed between the evaluation and its assembly: the resumed run has both phases for that epoch."""
    training = {
        **section(),
        "layers": [{"class_name": "Conv3D", "config": {"filters": 1, "kernel_size": 3, "padding": "same"}}],
        "outfile": "out.txt",
        "num_epochs": 1,
        "loss": {"function": "MSE"},
        "optimizer": {"type": "SGD", "learning_rate": 0.1},
        "checkpoints": {"save": "checkpoints", "resume": "auto"},
    }
    files = {f"{role}{side}_path": "volume.npy" for role in ("", "test_") for side in ("input", "target")}
    training["data"] = {**section()["data"], **files, "target_type": "numpy", "test_batch_size": 9}

    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        disturbed(training, tmp_path, "assemble prediction.h5, epoch 1", kill)
    assert not [name for name in left(tmp_path) if "prediction" in name]
    phases: list[str] = []

    def do(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        phases.append(name)
        return function(*arguments)

    execute(check(read({"neural_network": training}, tmp_path)), do)
    assert phases[-2:] == ["evaluate epoch 1", "assemble prediction.h5, epoch 1"]
    assert prediction(tmp_path).shape == SHAPE
    rows = [json.loads(line) for line in (tmp_path / "out_metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], list(row["assembled"])) for row in rows] == [(1, ["bricks"])]
