"""Whether a service can run for months: many runs on one server, and what they leave in memory and on the disk.

    python benchmarks/long_life.py [--runs 200] [--together 8] [--every 20] [--json FILE]

Puts up a service of its own (`rml up` in a temporary folder) and a Dask cluster (a scheduler and a worker), and submits
small runs on a volume that go through every phase: load, slice, train, checkpoint, evaluate, assemble. First
`--together` of them side by side, then `--runs` one after another, each with a folder, data and results of its own.
Between runs, when nothing is in progress, it looks at what holds memory (the part of it that nobody shares, USS), at
open files, and at what lies in temporary folders, the cache and the database.

Ends with status 1 where a run did not end well, a process or a file is left, or the memory of a worker or of Dask
grows by more than `GROWTH_MB` in 100 runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

GROWTH_MB = 5.0
PATIENCE = 900.0
BIN = Path(sys.executable).parent
BENCHMARKS = Path(__file__).parent
# By a part of the command line.
KINDS = {
    "server": "flows.service.server server start",
    "worker": "flows.service.worker",
    "supervisor": "supervisor.supervisord",
    "scheduler": "dask scheduler",
    "dask": "multiprocessing.spawn",
    "nanny": "dask worker",
}


FOLDERS = ("tmp", "cache", "dask")


@dataclass
class Looked:
    """What was found when `runs` had ended: of each kind of process its memory (MB) and open files; and files."""

    runs: int
    seconds: float
    memory: dict[str, float]
    descriptors: dict[str, int]
    processes: int
    left: dict[str, int]
    database_mb: float


def settings_of_scheduler() -> dict[str, str]:
    """Dask's own, as the compose file has them."""
    services = yaml.safe_load((BENCHMARKS.parent / "deployments" / "compose.yaml").read_text())["services"]
    return {key: value for key, value in services["dask-scheduler"]["environment"].items() if key.startswith("DASK_")}


@dataclass
class Service:
    """A service and a Dask cluster in `folder`, with an environment of their own."""

    folder: Path
    together: int
    dask: list[subprocess.Popen[bytes]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    refused: int = 0
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            self.port, dask = one.getsockname()[1], two.getsockname()[1]
        self.api, self.scheduler = f"http://127.0.0.1:{self.port}/api", f"tcp://127.0.0.1:{dask}"
        places = {"HOME": "home", "RML_STATE": "state", "XDG_CACHE_HOME": "cache", "TMPDIR": "tmp"}
        for name in places.values():
            (self.folder / name).mkdir()
        foreign = ("PREFECT_", "RML_", "DASK_")
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        self.env |= {key: str(self.folder / name) for key, name in places.items()}
        self.env |= {"OMP_NUM_THREADS": "1", "RML_THREADS": "1"}

    def command(self, *words: str) -> None:
        done = subprocess.run([BIN / words[0], *words[1:]], env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def up(self) -> None:
        host, port = self.scheduler.removeprefix("tcp://").split(":")
        scheduler = ["scheduler", "--host", host, "--port", port, "--no-dashboard"]
        worker = ["worker", self.scheduler, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"]
        worker += ["--local-directory", str(self.folder / "dask")]
        with (self.folder / "dask.log").open("wb") as log:
            for words, settings in ((scheduler, settings_of_scheduler()), (worker, {})):
                env = {**self.env, **settings}
                self.dask.append(subprocess.Popen([BIN / "dask", *words], env=env, stdout=log, stderr=log))
        self.command("rml", "up", "--port", str(self.port), "--gpu-runs", "0", "--cpu-runs", str(self.together))

    def down(self) -> None:
        try:
            self.command("rml", "down")
        finally:
            for process in reversed(self.dask):
                process.terminate()
            for process in self.dask:
                process.wait(timeout=30)

    def ask(self, path: str, body: Any = None) -> Any:
        import httpx

        # SQLite has one writer: who comes at a bad moment is asked to come again.
        until = time.monotonic() + PATIENCE
        while True:
            try:
                answer = httpx.request("GET" if body is None else "POST", f"{self.api}{path}", json=body, timeout=60)
                if answer.status_code != 503 or time.monotonic() > until:
                    break
                self.refused += 1
            except httpx.TimeoutException:
                self.refused += 1
                if time.monotonic() > until:
                    raise
            time.sleep(0.5)
        answer.raise_for_status()
        return answer.json()

    def submit(self, number: int) -> str:
        """A run in a folder of its own; gives its id."""
        folder = self.folder / "runs" / f"{number:04d}"
        folder.mkdir(parents=True)
        draw = np.random.default_rng(number)
        np.save(folder / "volume.npy", draw.normal(size=(24, 24, 24)).astype(np.float32))
        np.save(folder / "target.npy", draw.integers(0, 2, size=(24, 24, 24)).astype(np.int64))
        deployment = self.ask("/deployments/name/rml/train")["id"]
        parameters = {"neural_network": run_file(), "base": str(folder), "scheduler": self.scheduler}
        name = f"run {number}"
        made = self.ask(f"/deployments/{deployment}/create_flow_run", {"parameters": parameters, "name": name})
        return str(made["id"])

    def wait(self, run: str) -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            found = self.ask(f"/flow_runs/{run}")
            if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                if found["state_type"] != "COMPLETED":
                    self.failed.append(f"{found['name']} is {found['state_name']}: {found['state']['message']}")
                    print(self.failed[-1], file=sys.stderr, flush=True)
                return
            time.sleep(0.5)
        self.failed.append(f"run {run} did not end")

    def look(self, runs: int) -> Looked:
        """What there is when nothing is in progress; a run's process may take a moment to go."""
        until = time.monotonic() + 20
        while (found := self._processes())[1] and time.monotonic() < until:
            time.sleep(0.2)
        kinds, others = found
        state = self.folder / "state"
        database = sum(path.stat().st_size for path in state.rglob("prefect.db*")) / 2**20
        return Looked(
            runs=runs,
            seconds=time.monotonic() - self.began,
            memory={kind: process.memory_full_info().uss / 2**20 for kind, process in kinds.items()},
            descriptors={kind: process.num_fds() for kind, process in kinds.items()},
            processes=len(others),
            left={
                **{name: sum(each.is_file() for each in (self.folder / name).rglob("*")) for name in FOLDERS},
                "results": sum(each.is_file() for each in (state / "prefect" / "storage").glob("*")),
            },
            database_mb=database,
        )

    def _processes(self) -> tuple[dict[str, psutil.Process], list[psutil.Process]]:
        """Those that stay, by kind, and those that should not be there."""
        kinds: dict[str, psutil.Process] = {}
        others = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") != self.env["HOME"]:
                    continue
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            kind = next((kind for kind, part in KINDS.items() if part in line), None)
            if kind is not None and kind not in kinds:
                kinds[kind] = process
            elif "resource_tracker" not in line and process.status() != psutil.STATUS_ZOMBIE:
                others.append(process)
        return kinds, others


def run_file() -> dict[str, Any]:
    """A small volume, cut, trained on, evaluated and assembled by way of Dask."""
    convolution = {"filters": 2, "kernel_size": 3, "padding": "same", "activation": "softmax"}
    return {
        "outfile": "out.txt",
        "num_epochs": 2,
        "layers": [
            {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 8, 8, 8, 1]}},
            {"class_name": "Conv3D", "config": convolution},
        ],
        "data": {
            "type": "numpy",
            "input_path": "volume.npy",
            "target_path": "target.npy",
            "test_input_path": "volume.npy",
            "test_target_path": "target.npy",
            "target_is_mask": True,
            "preload": True,
            "batch_size": 9,
            "slicers": [{"sizes": [8, 8, 8]}],
            "hdf5_outfile": "prediction.h5",
        },
        "optimizer": {"type": "SGD", "learning_rate": 0.01},
        "loss": {"function": "Dice"},
        "checkpoints": {"save": "checkpoints", "keep": 1},
    }


@contextmanager
def service(together: int) -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="rml-life-") as folder:
        made = Service(Path(folder), together)
        try:
            made.up()
            yield made
        finally:
            made.down()


def slope(looked: list[Looked], kind: str) -> float:
    """MB in 100 runs, by Theil and Sen over the second half: what a process takes while it warms up is no leak."""
    half = looked[len(looked) // 2 :] if len(looked) > 5 else looked[-2:]
    pairs = [(one, two) for one in half for two in half if one.runs < two.runs]
    if len(half) < 2:
        return 0.0
    return 100 * statistics.median((two.memory[kind] - one.memory[kind]) / (two.runs - one.runs) for one, two in pairs)


def line(found: Looked) -> str:
    memory = "".join(f"{found.memory.get(kind, float('nan')):11.1f}" for kind in KINDS)
    files = "".join(f"{found.descriptors.get(kind, -1):5d}" for kind in KINDS)
    left = "".join(f"{count:8d}" for count in found.left.values())
    return f"{found.runs:5d}{found.seconds:8.0f}{memory}  {files}{found.processes:5d}{left}{found.database_mb:9.1f}"


HEADING = (
    f"{'runs':>5}{'s':>8}" + "".join(f"{kind:>11}" for kind in KINDS) + "   open files of these".ljust(32)
    + "left".rjust(5) + "".join(f"{name:>8}" for name in (*FOLDERS, "results")) + "   db MB"
)  # fmt: skip


def measured(runs: int, together: int, every: int) -> tuple[list[Looked], list[str]]:
    """What was found, look by look, and the runs that did not end well."""
    with service(together) as made:
        print(HEADING, flush=True)
        looked = [made.look(0)]
        print(line(looked[-1]), flush=True)
        began = [made.submit(number) for number in range(together)]
        for run in began:
            made.wait(run)
        looked.append(made.look(together))
        print(line(looked[-1]), flush=True)
        for number in range(together, together + runs):
            made.wait(made.submit(number))
            if (number - together + 1) % every == 0 or number == together + runs - 1:
                looked.append(made.look(number + 1))
                print(line(looked[-1]), flush=True)
        print(f"asked again, because the server was busy: {made.refused} times")
        return looked, made.failed


def main() -> None:
    parser = argparse.ArgumentParser(description="Many runs on one service, and what they leave.")
    parser.add_argument("--runs", type=int, default=200, help="runs one after another")
    parser.add_argument("--together", type=int, default=8, help="runs side by side, before those")
    parser.add_argument("--every", type=int, default=20, help="runs between two looks")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    options = parser.parse_args()
    # Told to end, it takes its service down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    looked, failed = measured(options.runs, options.together, options.every)
    if options.json is not None:
        options.json.write_text(json.dumps([vars(each) for each in looked], indent=1))
    grown = {kind: slope(looked[1:], kind) for kind in KINDS}
    print("MB in 100 runs: " + ", ".join(f"{kind} {value:+.1f}" for kind, value in grown.items()))
    first, last = looked[1], looked[-1]
    problems = failed + [f"{kind} grows" for kind in ("worker", "scheduler", "dask") if grown[kind] > GROWTH_MB]
    problems += [f"{last.processes} processes are left"] if last.processes else []
    problems += [
        f"{last.left[name] - first.left[name]} files are left in {name}"
        for name in ("tmp", "dask")
        if last.left[name] > first.left[name]
    ]
    print("; ".join(problems) or "nothing is left behind")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
