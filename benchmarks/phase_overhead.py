"""What one more phase costs as a Prefect task run, with a server running.

The same run of many short epochs is made as a flow and as plain calls (`--untracked`). The seconds from one
epoch's end to the next are read from its training log; the difference of their medians is what Prefect adds to the
phases of an epoch. `rml plan` says how many there are. torch has one thread in both: with more of them the server's
own work would stall the steps of a network as small as this one, and that would be measured instead.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from measure import Row, interleaved, main, median_epoch
from networks import small_cnn_json
from pictures import KINDS, classes
from product import rml

SIZE, BATCH, BOUND = 28, 16, 0.006
PATIENCE = 90.0


@contextmanager
def server(home: Path) -> Iterator[dict[str, str]]:
    """A Prefect server of its own, its database in `home`; gives the environment of its clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    env = {"PREFECT_HOME": str(home), "PREFECT_API_URL": address, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait(f"{address}/health", process, home / "server.log")
            yield env
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(health: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the Prefect server did not start: {log.read_text()}")


def write_run_file(folder: Path, epochs: int) -> Path:
    """Training and evaluation on one batch of pictures, over and over."""
    images = folder / "images"
    classes(images, BATCH, SIZE, ".png", colour=False)
    run_file = folder / "run.json"
    network = {
        "outfile": "out.txt",
        "num_epochs": epochs,
        "data": {
            "input_type": "images",
            "target_type": "labels",
            "input_path": str(images),
            "test_input_path": str(images),
            "grayscale": True,
            "preload": True,
            "batch_size": BATCH,
            "test_batch_size": BATCH,
        },
        "layers": small_cnn_json(SIZE, 1, len(KINDS)),
        "optimizer": {"type": "Adam"},
        "loss": {"function": "NLL"},
    }
    run_file.write_text(json.dumps({"neural_network": network}))
    return run_file


def phases_of_an_epoch(run_file: Path, epochs: int) -> float:
    _, text = rml("plan", run_file, "--json")
    repeated = [phase for phase in json.loads(text)["phases"] if phase["kind"] in ("train", "evaluate", "checkpoint")]
    return len(repeated) / epochs


def seconds_an_epoch(run_file: Path, tracked: bool, env: Mapping[str, str]) -> float:
    rml("run", run_file, *([] if tracked else ["--untracked"]), env={**env, "OMP_NUM_THREADS": "1"})
    return median_epoch(run_file.with_name("out_train.txt"))


def rows(rounds: int, quick: bool) -> list[Row]:
    epochs = 3 if quick else 60
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_file = write_run_file(folder, epochs)
        phases = phases_of_an_epoch(run_file, epochs)
        home = folder / "prefect"
        home.mkdir()
        with server(home) as env:
            tracked = partial(seconds_an_epoch, run_file, True, env)
            untracked = partial(seconds_an_epoch, run_file, False, env)
            as_flow, as_calls = interleaved(tracked, untracked, rounds)
        assert as_calls is not None
        return [Row("one more phase, server running", (as_flow - as_calls) / phases, None, BOUND)]


if __name__ == "__main__":
    main(rows)
