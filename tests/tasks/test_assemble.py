"""Assembly on real clusters: what workers do, and what remains when they die."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from flows.phases import as_it_is, execute
from rml_core.assembly import regions
from rml_core.assembly import spool as spools
from rml_core.assembly.layout import Assembly
from rml_core.assembly.ring import Ring
from rml_core.assembly.spool import Spool
from rml_core.assembly.writer import Assembled, Assembler
from rml_core.check import check
from rml_core.config.problem import RunFailed
from rml_core.run import read
from rml_core.slicers.grid import Axis, SliceGrid
from tasks import cluster as clusters
from tasks.cluster import cluster

GRID = SliceGrid("bricks", (Axis(24, 6, 3), Axis(12, 6, 3), Axis(12, 6, 3)))
OUTPUTS = np.random.default_rng(0).standard_normal((GRID.count, 1, 6, 6, 6), np.float32)


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Any]:
    """The section of a run file that sends a volume through a mean of 3 x 3 x 3, held against labels."""
    random = np.random.default_rng(3)
    np.save(tmp_path / "volume.npy", random.standard_normal((40, 33, 37), np.float32))
    np.save(tmp_path / "mask.npy", random.integers(0, 2, (40, 33, 37), np.uint8))
    mean = {"pool_size": 3, "strides": 1, "padding": "same"}
    return {
        "outfile": "out.txt",
        "layers": [{"class_name": "AveragePooling3D", "config": {"name": "mean", **mean}}],
        "loss": {"function": "BCE", "source": "logits"},
        "data": {
            "type": "numpy",
            "test_input_path": "volume.npy",
            "test_target_path": "mask.npy",
            "target_is_mask": True,
            "test_batch_size": 5,
            "slicers": [
                {"name": "bricks", "sizes": [16, 16, 16], "strides": [8, 8, 8]},
                {"name": "gaps", "sizes": [16, 12, 10], "strides": [20, 12, 7], "discard_remainders": True},
            ],
            "overlap_blend": "gaussian",
            "hdf5_outfile": "prediction.h5",
        },
    }


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["single", "half"])
def test_a_run_with_a_cluster_and_without_one(
    two_workers,
    volumes: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
):
    """The same bits in the file and in the figures; with hardly any memory, too."""
    volumes["data"]["hdf5_precision"] = precision
    found = []
    for memory, options in (("1GB", []), ("1MiB", []), ("1MiB", ["--scheduler", two_workers.address])):
        monkeypatch.setenv("RML_MEMORY", memory)
        assert rml("run", run_file({"neural_network": volumes}), "--untracked", *options)[0] == 0
        with h5py.File(tmp_path / "prediction.h5") as file:
            values = [file[name][...] for name in ("bricks", "gaps")]
        (row,) = map(json.loads, (tmp_path / "out_metrics.jsonl").read_text().splitlines())
        found.append([*[each.tobytes() for each in values], json.dumps(row["assembled"])])
        assert values[0].dtype == {"single": np.float32, "half": np.float16}[precision]
        assert row["assembled"]["bricks"]["support"][0] > 0
        assert sum(row["assembled"]["bricks"]["support"]) == 40 * 33 * 37
        assert sum(row["assembled"]["gaps"]["support"]) == np.count_nonzero(~np.isnan(values[1]))
        assert not list(tmp_path.glob(".*"))
    assert found[0] == found[1] == found[2]


def feed(assembler: Assembler) -> None:
    for number in GRID.in_order(np.arange(GRID.count), GRID.slab_axis(1)):
        assembler.add(np.array([number]), torch.from_numpy(OUTPUTS[[number]]))


def assembled(path: Path, address: str, score: Any = None) -> Assembled:
    with cluster(address) as workers:
        way = lambda blends, finishing, where: Spool(blends, finishing, workers, 1 << 30, where)  # noqa: E731
        with pytest.MonkeyPatch.context() as patch:
            # Eight regions.
            patch.setattr(regions, "USUAL", 3 * 12 * 12 * 4)
            assembler = Assembler(Assembly(path, (GRID,), 1), way, score, mapped=False)
        try:
            feed(assembler)
            return assembler.finish()
        finally:
            assembler.discard()


def wait_for(found: Callable[[], bool], logs: Path) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline, [log.read_text() for log in logs.glob("*.log")]
        time.sleep(0.02)


@pytest.fixture
def held(tmp_path: Path) -> tuple[Callable[..., None], Path]:
    """A score that tells which process asks for it, and waits until the folder has a file `go`."""
    folder = tmp_path / "held"
    folder.mkdir()
    place = str(folder)

    def score(number: int, at: Any, values: Any) -> None:
        import os
        import time
        from pathlib import Path

        Path(place, f"{os.getpid()}-{at[0].start}").touch()
        deadline = time.monotonic() + 60
        while not Path(place, "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    return score, folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prediction.h5"


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], Any]], Callable[[], Any]]]:
    """Begins what it is given; gives what waits for the result."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda function: pool.submit(function).result


@pytest.fixture
def same(path: Path) -> bytes:
    """What threads of one process make of `OUTPUTS`."""
    with ThreadPoolExecutor(1) as pool:
        way = lambda blends, finishing, where: Ring(blends, finishing, pool.submit, 1, 1 << 30, where)  # noqa: E731
        assembler = Assembler(Assembly(path, (GRID,), 1), way)
        feed(assembler)
        assembler.finish()
    with h5py.File(path) as file:
        return file["bricks"][...].tobytes()


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "LOOK_S", 0.05)
    monkeypatch.setattr(clusters, "ALONE_S", 0.2)


def test_a_killed_worker_costs_its_regions_again(own_workers, held, path: Path, in_thread, same: bytes):
    score, folder = held
    ended = in_thread(lambda: assembled(path, own_workers.address, score))
    processes = {process.pid for process in own_workers.workers}
    wait_for(lambda: {int(each.name.split("-")[0]) for each in folder.iterdir()} == processes, own_workers.folder)
    killed = own_workers.workers[0]
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = [each.name.split("-")[1] for each in folder.glob(f"{killed.pid}-*")]
    (folder / "go").touch()
    assert ended().nbytes == 24 * 12 * 12 * 4
    again = {each.name for each in folder.glob(f"{own_workers.workers[1].pid}-*")}
    assert {f"{own_workers.workers[1].pid}-{start}" for start in before} <= again
    with h5py.File(path) as file:
        assert file["bricks"][...].tobytes() == same
    assert not list(path.parent.glob(".*"))


@pytest.mark.usefixtures("_small")
def test_all_workers_die(own_workers, held, path: Path, in_thread):
    path.write_text("the one before")
    score, folder = held
    ended = in_thread(lambda: assembled(path, own_workers.address, score))
    wait_for(lambda: len(list(folder.iterdir())) >= 2, own_workers.folder)
    for process in own_workers.workers:
        process.send_signal(signal.SIGKILL)
        process.wait()
    said = f"no Dask worker is left at {own_workers.address}, and none has come for 0.2 s"
    with pytest.raises(RunFailed, match=f"^{re.escape(said)}$"):
        ended()
    assert path.read_text() == "the one before"
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize("prepared", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_signal_while_there_is_no_worker(
    no_workers, volumes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: bool
):
    """It waits for one, says so at once, and ends when it is told to: nothing is left of its file."""
    (tmp_path / "run.json").write_text(json.dumps({"neural_network": volumes}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if prepared:
        # Then there is nothing to do for workers before there are predictions.
        execute(check(read({"neural_network": volumes}, tmp_path)), as_it_is)
        (tmp_path / "prediction.h5").unlink()
    main = "from flows.cli import main; main()"
    command = [sys.executable, "-c", main, "run", "run.json", "--untracked", "--scheduler", no_workers.address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        waiting = f"waiting for a Dask worker at {no_workers.address}"
        said = next((line for line in process.stdout if waiting in line), "")
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert waiting in said
    assert (f"no Dask worker is at {no_workers.address}; interrupted while waiting for one" in rest) is prepared
    assert "Traceback" not in rest
    assert process.returncode in (143, -signal.SIGTERM)
    assert not list(tmp_path.glob(".prediction*"))
    assert not (tmp_path / "prediction.h5").exists()


def test_a_client_that_is_closed_before_all_is_let_go(two_workers, path: Path, capfd: pytest.CaptureFixture[str]):
    with cluster(two_workers.address) as workers:
        way = lambda blends, finishing, where: Spool(blends, finishing, workers, 1 << 30, where)  # noqa: E731
        assembler = Assembler(Assembly(path, (GRID,), 1), way, mapped=False)
        assembler._way._under_way["set", (0,)] = workers.submit(time.sleep, 0.2)
    assert list(path.parent.glob(".prediction.h5.spool.*"))
    gone = f"^the Dask scheduler at {re.escape(two_workers.address)} is gone \\("
    for failing in (workers.check, lambda: workers.submit(abs, 1)):
        with pytest.raises(RunFailed, match=gone):
            failing()
    assembler.discard()
    assert not list(path.parent.glob(".prediction*"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
def test_the_scheduler_dies(own_workers, held, path: Path, in_thread):
    score, folder = held
    ended = in_thread(lambda: assembled(path, own_workers.address, score))
    wait_for(lambda: len(list(folder.iterdir())) >= 2, own_workers.folder)
    own_workers.scheduler.send_signal(signal.SIGKILL)
    own_workers.scheduler.wait()
    with pytest.raises(RunFailed, match=f"^the Dask scheduler at {re.escape(own_workers.address)} "):
        ended()
    (folder / "go").touch()
    assert not list(path.parent.glob(".prediction*"))
