"""How soon a retraining on unchanged data reaches its first batch, against the first round on the same data.

A round is made as the flow makes it, in a process of its own, on 100,000 small pictures that are preloaded. Neither a
server's work nor the start of a worker's process is measured, which both rounds have alike. The pages of the files are
in memory for both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from measure import Row, main

PICTURES, SIZE, KINDS, BATCH, BOUND = 100_000, 12, 10, 500, 0.3

# Says when its training began, counted from before the run file is read.
ROUND = """
import json, sys, time
from pathlib import Path
import torch
from flows.retraining import Retraining, planned, retrained

folder, run_id = Path(sys.argv[1]), sys.argv[2]
began = time.perf_counter()

class FirstBatch(Exception):
    pass

def do(name, function, *arguments):
    if name == "train epoch 1":
        print(time.perf_counter() - began, flush=True)
        if sys.argv[3] == "first batch":
            raise FirstBatch
    return function(*arguments)

run_file = json.loads((folder / "run.json").read_text())
try:
    retrained(planned(Retraining(if_unchanged="train"), run_file, folder, None), do, run_id)
except Exception:
    if sys.argv[3] != "first batch":
        raise
"""


def write_pictures(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for role, number in (("train", count), ("test", max(count // 100, KINDS))):
        for kind in range(KINDS):
            (folder / role / str(kind)).mkdir(parents=True)
        for index in range(number):
            picture = random.integers(0, 255, (SIZE, SIZE), dtype=np.uint8)
            path = folder / role / str(index % KINDS) / f"{index}.png"
            path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def of_pictures(folder: Path, count: int) -> None:
    write_pictures(folder, count)
    data = {
        "input_type": "images",
        "target_type": "labels",
        "input_path": "train",
        "test_input_path": "test",
        "grayscale": True,
        "preload": True,
        "batch_size": BATCH,
    }
    layers = [
        {"class_name": "Flatten", "config": {}},
        {"class_name": "Dense", "config": {"units": KINDS, "activation": "log_softmax"}},
    ]
    write_run_file(folder, data, layers, "NLL")


def write_run_file(folder: Path, data: dict[str, object], layers: list[object], loss: str) -> None:
    section = {"data": data, "layers": layers, "optimizer": {"type": "SGD"}, "loss": {"function": loss}}
    (folder / "run.json").write_text(json.dumps({"neural_network": section}))


def seconds(folder: Path, run_id: str, until: str) -> float:
    """Until the training of a round begins; the round itself goes on `until` "the end", or the "first batch"."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-c", ROUND, str(folder), run_id, until]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def compared(name: str, folder: Path, rounds: int) -> Row:
    first = seconds(folder, "first", "the end")
    again = min(seconds(folder, f"again {number}", "first batch") for number in range(rounds))
    return Row(name, again, first, BOUND)


def rows(rounds: int, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        of_pictures(folder, 200 if quick else PICTURES)
        return [compared("retrain, first batch, 100,000 small pictures", folder, rounds)]


if __name__ == "__main__":
    main(rows)
