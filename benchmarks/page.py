"""What it costs to show a run in Prefect, with a server running: epochs of ten seconds, and 2,000 of ten milliseconds.

The same run is made as a flow and as plain calls (`--untracked`); compared are the seconds between the ends of the
first and the last epoch, by its training log. What shows a run while it works is in them: its task runs, the table of
epochs, curves and progress, and the work of the server, which shares the machine. torch has one thread in both.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from measure import Row, after_first_epoch, compare, main, shortest_epoch
from networks import small_cnn_json
from phase_overhead import server, write_run_file
from product import rml

SIZE, BATCH, CLASSES = 28, 16, 2
LONG, LONG_EPOCHS, SHORT_EPOCHS = 10.0, 4, 2000
# Batches of an epoch by which it is found out how many of them take `LONG` seconds.
TRIED = 100
BOUND_LONG, BOUND_SHORT = 1.01, 1.25


def write_idx(path: Path, array: np.ndarray) -> None:
    """Bytes as MNIST has them."""
    path.write_bytes(struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes())


def write_long(folder: Path, batches: int, epochs: int) -> Path:
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


def rows(rounds: int, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = folder / "prefect"
        home.mkdir()
        with server(home) as env:
            tried = write_long(folder / "tried", TRIED, 3)
            seconds(tried, False, env)
            batches = TRIED if quick else round(TRIED * LONG / shortest_epoch(tried.with_name("out_train.txt")))
            long = write_long(folder / "long", batches, 2 if quick else LONG_EPOCHS)
            (folder / "short").mkdir()
            short = write_run_file(folder / "short", 120 if quick else SHORT_EPOCHS)
            found = []
            for name, file, bound in (
                (f"epochs of {LONG:.0f} s, shown", long, BOUND_LONG),
                (f"{SHORT_EPOCHS} epochs of 10 ms, shown", short, BOUND_SHORT),
            ):
                shown, bare = partial(seconds, file, True, env), partial(seconds, file, False, env)
                found.append(compare(name, shown, bare, bound, rounds))
    return found


if __name__ == "__main__":
    main(rows)
