"""`deployments/slurm/`, with an `sbatch` that runs jobs on this machine, and an `srun` that runs a task once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[2] / "deployments" / "slurm"
# The job's script is copied, as SLURM does it: who submits removes it at once.
SBATCH = """#!/bin/bash
id=$RANDOM
cp "${@: -1}" "$JOBS/$id.sh"
SLURM_JOB_ID=$id SLURM_CPUS_PER_TASK=1 setsid bash "$JOBS/$id.sh" > "$JOBS/$id.log" 2>&1 < /dev/null &
echo $! > "$JOBS/$id.pid"
echo "Submitted batch job $id"
"""
SCANCEL = """#!/bin/bash
for id in "$@"; do kill -TERM -- "-$(cat "$JOBS/$id.pid")"; done
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a login node; jobs are in `JOBS`, and what is left of them is killed."""
    folders = {"bin", "jobs", "shared", "config", "tmp"}
    for name in folders:
        (tmp_path / name).mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL), ("srun", SRUN)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    config = (SLURM / "jobqueue.yaml").read_text().replace("cores: 8", "cores: 1").replace("32GB", "1GB")
    (tmp_path / "config" / "jobqueue.yaml").write_text(config)
    yield {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "JOBS": str(tmp_path / "jobs"),
        "RML_SHARED": str(tmp_path / "shared"),
        "DASK_CONFIG": str(tmp_path / "config"),
        "TMPDIR": str(tmp_path / "tmp"),
        "OMP_NUM_THREADS": "1",
    }
    for pid in (tmp_path / "jobs").glob("*.pid"):
        try:
            os.killpg(int(pid.read_text()), signal.SIGKILL)
        except (ProcessLookupError, ValueError):
            continue


def answer_of(address: str) -> str:
    """Where a worker of the cluster looks for prepared samples."""
    from distributed import Client

    with Client(address, timeout=60) as client:
        return str(client.submit(os.getenv, "XDG_CACHE_HOME").result(timeout=90))


def when_there(path: Path, seconds: float = 60) -> str:
    until = time.monotonic() + seconds
    while not path.exists() or not path.read_text():
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.1)
    return path.read_text().strip()


def until_gone(pids: list[int], seconds: float = 30) -> None:
    """Until the process groups are gone."""
    until = time.monotonic() + seconds
    for pid in pids:
        while time.monotonic() < until:
            try:
                os.killpg(pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"process group {pid} is left")


@pytest.mark.slow
def test_a_cluster_in_one_job(slurm: dict[str, str], tmp_path: Path) -> None:
    submitted = subprocess.run(["sbatch", SLURM / "dask.sbatch"], env=slurm, capture_output=True, text=True, check=True)
    job = submitted.stdout.split()[-1]
    address = tmp_path / "shared" / "dask" / "address"
    assert answer_of(when_there(address)) == str(tmp_path / "shared" / "cache")
    leader = int((tmp_path / "jobs" / f"{job}.pid").read_text())
    subprocess.run(["scancel", job], env=slurm, check=True)
    until_gone([leader])
    assert not address.exists()


@pytest.mark.slow
def test_a_cluster_that_asks_for_workers_while_there_is_work(slurm: dict[str, str], tmp_path: Path) -> None:
    said = tmp_path / "address"
    with said.open("wb") as out, (tmp_path / "log").open("wb") as log:
        cluster = subprocess.Popen([sys.executable, SLURM / "cluster.py", "1"], env=slurm, stdout=out, stderr=log)
    try:
        assert answer_of(when_there(said)) == str(tmp_path / "shared" / "cache")
        leaders = [int(each.read_text()) for each in (tmp_path / "jobs").glob("*.pid")]
        assert len(leaders) == 1
        cluster.terminate()
        assert cluster.wait(timeout=30) == 0
        until_gone(leaders)
    finally:
        cluster.kill()
        cluster.wait()


@pytest.mark.parametrize("name", ["dask.sbatch", "worker.sbatch"])
def test_scripts_are_shell_and_say_what_they_need(name: str, slurm: dict[str, str]) -> None:
    assert subprocess.run(["bash", "-n", SLURM / name], check=False).returncode == 0
    del slurm["RML_SHARED"]
    done = subprocess.run(["bash", SLURM / name], env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "RML_SHARED: the folder that all nodes share" in done.stderr


def test_a_worker_is_told_in_time_and_takes_the_pool(slurm: dict[str, str], tmp_path: Path) -> None:
    text = (SLURM / "worker.sbatch").read_text()
    assert "#SBATCH --signal=B:TERM@120" in text
    # In place of Python, what it was called with.
    (tmp_path / "bin" / "python").write_text('#!/bin/bash\necho "$@" "$PREFECT_LOCAL_STORAGE_PATH" "$RML_ROOTS"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    environment = {**slurm, "PREFECT_API_URL": "http://login:4200/api", "SLURM_JOB_ID": "7"}
    environment.pop("RML_ROOTS", None)
    done = subprocess.run(
        ["bash", SLURM / "worker.sbatch"], env=environment, capture_output=True, text=True, check=True
    )
    shared = slurm["RML_SHARED"]
    assert done.stdout == f"-m flows.service.worker gpu {shared}/results {shared}\n"
