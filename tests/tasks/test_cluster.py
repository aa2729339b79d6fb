"""Work in threads, and on a cluster that is there: a scheduler and a worker of their own."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest

from rml_core.config.problem import Refused, RunFailed
from rml_core.config.section import parse
from rml_core.data.prepared import prepare
from rml_core.data.section import Data
from rml_core.data.survey import survey
from tasks.cluster import _connected, check_address, mapper


def doubled(number: int) -> int:
    return 2 * number


def fails_on_3(number: int) -> int:
    if number == 3:
        raise RunFailed("3 is too much")
    return number


def process_of(_: Any) -> int:
    return os.getpid()


@pytest.mark.parametrize(
    "address", [None, "tcp://host:8786", "host:8786", "tls://10.0.0.1:1", "tcp://[::1]:8786", "ws://a.b-c:65535/"]
)
def test_addresses(address: str | None):
    check_address(address)


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "nonsense://here", "nonsense://here:8786", "tcp://host", "tcp://:8786", "host:0", "h:70000"],
)
def test_what_is_no_address(address: str):
    with pytest.raises(Refused) as refused:
        check_address(address)
    assert str(refused.value) == (f'--scheduler: "{address}" does not fit\n    allowed: an address, as tcp://host:8786')


def refused_by(address: str) -> str:
    with pytest.raises(Refused) as refused:
        check_address(address)
    return str(refused.value)


UNTRUSTED = (
    '--scheduler: "{address}" is not one that this worker trusts\n'
    "    allowed: {allowed}\n    leave it out, or ask whoever runs the worker"
)


@pytest.mark.parametrize("address", ["tcp://any:8786", "tcp://127.0.0.1.evil:1", "127.1:1", "tcp://[::2]:1"])
def test_a_worker_takes_schedulers_of_its_own_machine_from_others(monkeypatch: pytest.MonkeyPatch, address: str):
    monkeypatch.delenv("RML_ROOTS", raising=False)
    monkeypatch.delenv("RML_SCHEDULERS", raising=False)
    check_address(address)
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "id")
    allowed = "one of the worker's own machine, as tcp://127.0.0.1:8786, or those that RML_SCHEDULERS names"
    assert refused_by(address) == UNTRUSTED.format(address=address, allowed=allowed)
    for own in ("127.0.0.1:1", "tcp://127.8.9.1:8786", "tls://localhost:2", "ws://[::1]:3/", None):
        check_address(own)
    monkeypatch.setenv("RML_SCHEDULERS", "")
    own = "tcp://127.0.0.1:8786"
    assert refused_by(own) == UNTRUSTED.format(address=own, allowed="none (RML_SCHEDULERS)")
    monkeypatch.setenv("RML_SCHEDULERS", address)
    check_address(address)


def test_a_worker_with_roots_takes_none_but_schedulers_that_it_trusts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RML_ROOTS", "/data")
    monkeypatch.delenv("RML_SCHEDULERS", raising=False)
    check_address("tcp://any:8786")
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "id")
    own = "tcp://127.0.0.1:8786"
    assert refused_by(own) == UNTRUSTED.format(address=own, allowed="none (RML_SCHEDULERS)")
    for trusted, allowed in (("", "none"), ("tcp://a:1, tcp://b:2", "tcp://a:1, tcp://b:2")):
        monkeypatch.setenv("RML_SCHEDULERS", trusted)
        allowed = f"{allowed} (RML_SCHEDULERS)"
        assert refused_by("tcp://any:8786") == UNTRUSTED.format(address="tcp://any:8786", allowed=allowed)
    check_address("tcp://b:2")
    check_address(None)


def test_results_come_in_the_order_of_the_items(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RML_THREADS", "3")
    with mapper(None) as in_threads:
        assert list(in_threads(doubled, list(range(50)))) == [2 * number for number in range(50)]
        assert set(in_threads(process_of, [1, 1])) == {os.getpid()}


def test_as_many_at_once_as_there_are_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RML_THREADS", "3")
    together = threading.Barrier(3)
    with mapper(None) as in_threads:
        assert sorted(in_threads(lambda _: together.wait(timeout=60), [0, 1, 2])) == [0, 1, 2]


@pytest.mark.parametrize("watched", [False, True])
def test_the_first_failure_is_raised_and_the_rest_is_not_begun(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], watched: bool
):
    monkeypatch.setenv("RML_THREADS", "1")
    begun: list[int] = []
    seen: list[tuple[int, int]] = []
    go_on = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        # Until it is known that the third has failed.
        assert number < 4 or go_on.wait(timeout=60)
        return fails_on_3(number)

    watch = (lambda result, total: seen.append((result, total))) if watched else None
    with mapper(None, watch) as in_threads:
        later = threading.Timer(2.0, go_on.set)
        later.start()
        with pytest.raises(RunFailed, match=r"^3 is too much$"):
            in_threads(work, list(range(20)))
        later.cancel()
        assert begun in ([0, 1, 2, 3], [0, 1, 2, 3, 4])
        assert list(in_threads(doubled, [4])) == [8]
    assert sorted(seen) == ([(number, 20) for number in (0, 1, 2)] + [(8, 1)] if watched else [])
    assert capfd.readouterr() == ("", "")


def listening() -> int:
    return sum(found.status == psutil.CONN_LISTEN for found in psutil.Process().net_connections())


def ours() -> int:
    return sum(thread.name.startswith("rml-prepare") for thread in threading.enumerate())


def test_threads_are_started_when_they_are_needed_and_nothing_listens_or_stays():
    ports = listening()
    with mapper(None) as in_threads:
        assert ours() == 0
        assert in_threads(lambda _: (ours() > 0, listening() <= ports), [0]) == [(True, True)]
    assert ours() == 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """(address of a scheduler, process id of its one worker)."""
    folder = tmp_path_factory.mktemp("dask")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "false"}
    dask = [sys.executable, "-m", "dask"]
    processes = []

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([*dask, *arguments], env=environment, stdout=log, stderr=log, cwd=folder)
        processes.append(process)
        return process

    try:
        file = folder / "scheduler.json"
        start(
            "scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
            "--scheduler-file", str(file),
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text().endswith("}"):
            assert time.monotonic() < deadline, (folder / "scheduler.log").read_text()
            time.sleep(0.02)
        address = json.loads(file.read_text())["address"]
        worker = start(
            "worker", "worker", address, "--nthreads", "2", "--no-nanny", "--no-dashboard",
            "--local-directory", str(folder),
        )  # fmt: skip
        yield address, worker.pid
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_a_cluster_at_an_address_decodes(
    cluster: tuple[str, int],
    classification: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    address, worker = cluster

    def where(_: int) -> int:
        return os.getpid()

    with mapper(address) as on_cluster:
        assert set(on_cluster(where, [1, 2, 3])) == {worker}
    classification["neural_network"]["num_epochs"] = 1
    file = run_file(classification)
    assert rml("run", file, "--untracked", "--scheduler", address)[0] == 0
    there = [line.split()[3:] for line in (tmp_path / "out_train.txt").read_text().splitlines()]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert rml("run", file, "--untracked")[0] == 0
    assert there == [line.split()[3:] for line in (tmp_path / "out_train.txt").read_text().splitlines()]


def test_a_cluster_at_an_address_decodes_volumes(cluster: tuple[str, int], tmp_path: Path):
    """Each job takes some chunks from the file to their places in another; what comes back are counts."""
    array = np.random.default_rng(0).integers(0, 3, (40, 30, 50)).astype("f4")
    array[0, 0, :7] = np.nan
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=array, chunks=(7, 9, 11), compression="gzip", shuffle=True)
    keys = {"input_type": "hdf5", "input_path": "a.h5", "slicers": [{"sizes": [8, 8, 8]}], "preload": True}
    data = parse(Data, keys, "data")
    found = survey(data, "training", tmp_path)
    assert found is not None
    results: list[Any] = []
    with mapper(cluster[0], watch=lambda result, _: results.append(result)) as on_cluster:
        prepared = prepare(found, data, tmp_path / "prepared", on_cluster)
    np.testing.assert_array_equal(np.load(Path(prepared.folder, "inputs.npy"))[0], array)
    assert prepared.warnings == (f"{tmp_path}/a.h5:/x has 7 nan values",)
    assert sum(len(pickle.dumps(result)) for result in results) < 1000


@pytest.mark.parametrize("preload", [True, False])
def test_an_address_where_nobody_listens(
    classification: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    preload: bool,
):
    monkeypatch.setattr("tasks.cluster.ANSWER_S", 0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    classification["neural_network"]["data"]["preload"] = preload
    assert rml("run", run_file(classification), "--untracked", "--scheduler", address) == (
        1,
        "",
        f"load training: no Dask scheduler answers at {address} (Timed out trying to connect to {address} after "
        "0.2 s)\n",
    )


@pytest.mark.parametrize("preload", [True, False])
def test_an_address_that_is_none(
    classification: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Callable[..., tuple[int, str, str]],
    preload: bool,
):
    """Said before any work."""
    classification["neural_network"]["data"]["preload"] = preload
    file = run_file(classification)
    assert rml("run", file, "--untracked", "--scheduler", "nonsense") == (
        2,
        "",
        f'{file}: 1 problem\n\n--scheduler: "nonsense" does not fit\n    allowed: an address, as tcp://host:8786\n',
    )


def test_a_scheduler_lets_in_who_comes_while_others_cancel(cluster: tuple[str, int]):
    """That tasks are cancelled is told to all clients, also to those that it is just letting in."""
    import distributed

    address, _ = cluster
    ended = threading.Event()

    def cancels() -> None:
        with _connected(distributed, address) as other:
            while not ended.wait(0.001):
                other.cancel(other.map(doubled, [1], pure=False))
                # Until the scheduler has heard it: on a busy machine it would be drowned otherwise.
                other.nthreads()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(cancels)
        try:
            for _ in range(20):
                with mapper(address) as on_cluster:
                    assert list(on_cluster(len, ["ab"])) == [2]
        finally:
            ended.set()


def test_a_scheduler_that_says_more_than_its_first_word_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    import distributed

    asked: list[str] = []

    def client(address: str, timeout: float, set_as_default: bool) -> str:
        asked.append(address)
        assert len(asked) > 2
        return "client"

    monkeypatch.setattr(distributed, "Client", client)
    monkeypatch.setattr("tasks.cluster.LOOK_S", 0.0)
    assert _connected(distributed, "tcp://here:1") == "client"
    asked.clear()
    monkeypatch.setattr("tasks.cluster.ALONE_S", -1.0)
    with pytest.raises(RunFailed, match=r"^the Dask scheduler at tcp://here:1 lets nobody in$"):
        _connected(distributed, "tcp://here:1")


def test_what_else_uses_dask_in_this_process_does_not_use_our_clients(cluster: tuple[str, int]):
    """Neither while there is one nor when its scheduler is gone."""
    import dask

    alone = dask.delayed(process_of)(0)
    with mapper(cluster[0]) as on_cluster:
        assert list(on_cluster(len, ["ab"])) == [2]
        assert alone.compute() == os.getpid()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with (
            pytest.raises(RunFailed, match="no Dask scheduler answers"),
            mapper(f"tcp://127.0.0.1:{nobody.getsockname()[1]}"),
        ):
            pass
    assert alone.compute() == os.getpid()
