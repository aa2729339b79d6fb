"""What it costs to show a run in Prefect, with a server running: epochs of ten seconds, and 2,000 of ten milliseconds.

The same run is made as a flow and as plain calls (`--untracked`). What shows a run while it works takes part: its task
runs, the table of epochs, curves and progress, and the work of the server, which shares the machine. torch has one
thread in both.

Of the short epochs the seconds between the ends of the first and the last one are compared, by the training log. Two
runs of long epochs differ by more than what is looked for, though both are made the same way: how fast a processor
works is not the same from one minute to the next. Of these is compared how many seconds pass for each that the thread
which trains has of the processor: what holds it up, be it the server's answers or other threads, is in them.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from measure import Row, after_first_epoch, compare, main, median_epoch, shortest_epoch
from networks import small_cnn_json
from phase_overhead import server
from product import RML, rml

SIZE, BATCH, CLASSES = 28, 16, 2
LONG, LONG_EPOCHS = 10.0, 5
SHORT, SHORT_EPOCHS = 0.01, 2000
# Batches of an epoch by which it is found out how many of them take so long.
TRIED = 100
LOOK = 0.1
BOUND_LONG, BOUND_SHORT = 1.01, 1.25


def write_idx(path: Path, array: np.ndarray) -> None:
    """Bytes as MNIST has them."""
    path.write_bytes(struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes())


def write(folder: Path, batches: int, epochs: int) -> Path:
    """Training on so many batches of noise an epoch, and evaluation on one."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for name, count in (("train", batches * BATCH), ("t10k", BATCH)):
        write_idx(folder / f"{name}-images-idx3-ubyte", random.integers(0, 256, (count, SIZE, SIZE), np.uint8))
        write_idx(folder / f"{name}-labels-idx1-ubyte", random.integers(0, CLASSES, count, np.uint8))
    section = {
        "outfile": "out.txt",
        "num_epochs": epochs,
        "data": {
            "type": "mnist",
            "input_path": ".",
            "test_input_path": ".",
            "preload": True,
            "batch_size": BATCH,
            "test_batch_size": BATCH,
        },
        "layers": small_cnn_json(SIZE, 1, CLASSES),
        "optimizer": {"type": "Adam", "learning_rate": 0.0001},
        "loss": {"function": "NLL"},
        "checkpoints": {"save": "checkpoints"},
    }
    run_file = folder / "run.json"
    run_file.write_text(json.dumps({"neural_network": section}))
    return run_file


def seconds(run_file: Path, tracked: bool, env: Mapping[str, str]) -> float:
    rml("run", run_file, *([] if tracked else ["--untracked"]), env={**env, "OMP_NUM_THREADS": "1"})
    return after_first_epoch(run_file.with_name("out_train.txt"))


def held_up(run_file: Path, epochs: int, tracked: bool, env: Mapping[str, str]) -> float:
    """Seconds from the second epoch's first line in the log to the last one's, for each that the thread which trains
    had of the processor."""
    log = run_file.with_name("out_train.txt")
    log.unlink(missing_ok=True)
    command = [RML, "run", run_file, *([] if tracked else ["--untracked"])]
    given = {**os.environ, **env, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=given, stdout=subprocess.DEVNULL) as process:
        began, first = _when_it_trains(2, log, process)
        ended, last = _when_it_trains(epochs, log, process)
    return (ended - began) / (last - first)


def _when_it_trains(epoch: int, log: Path, process: subprocess.Popen[bytes]) -> tuple[float, float]:
    """The time, and how much of the processor the thread that trains has had, once it has come to `epoch`."""
    thread = Path(f"/proc/{process.pid}/task/{process.pid}/schedstat")
    while not log.exists() or f"\n{epoch} " not in log.read_text():
        if process.poll() is not None:
            raise RuntimeError(f"the run has ended before epoch {epoch}")
        time.sleep(LOOK)
    return time.perf_counter(), int(thread.read_text().split()[0]) / 1e9


def batches_a_second(folder: Path, env: Mapping[str, str]) -> float:
    tried = write(folder / "tried", TRIED, 3)
    seconds(tried, False, env)
    return TRIED / shortest_epoch(tried.with_name("out_train.txt"))


def of_short_epochs(folder: Path, a_second: float, env: Mapping[str, str]) -> int:
    """So many batches, of which so many are `a_second`, that an epoch takes `SHORT` seconds if it can: what belongs to
    each may take longer."""
    least = write(folder / "least", 1, TRIED)
    seconds(least, False, env)
    return 1 + max(0, round(a_second * (SHORT - median_epoch(least.with_name("out_train.txt")))))


def rows(rounds: int, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = folder / "prefect"
        home.mkdir()
        with server(home) as env:
            a_second = 0.0 if quick else batches_a_second(folder, env)
            epochs, short_epochs = (3, 120) if quick else (LONG_EPOCHS, SHORT_EPOCHS)
            long = write(folder / "long", TRIED if quick else round(a_second * LONG), epochs)
            short = write(folder / "short", 1 if quick else of_short_epochs(folder, a_second, env), short_epochs)
            sides = [partial(held_up, long, epochs, tracked, env) for tracked in (True, False)]
            found = [compare(f"epochs of {LONG:.0f} s, shown", *sides, BOUND_LONG, rounds)]
            sides = [partial(seconds, short, tracked, env) for tracked in (True, False)]
            row = compare("short epochs", *sides, BOUND_SHORT, rounds)
            # Where the machine is slow, one batch and what belongs to an epoch take longer than it is to be.
            took = (row.baseline or 0) / short_epochs
            found.append(replace(row, name=f"{short_epochs} epochs of {took * 1e3:.0f} ms, shown"))
    return found


if __name__ == "__main__":
    main(rows)
