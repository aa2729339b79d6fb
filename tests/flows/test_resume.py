"""Runs that are killed or interrupted, in processes of their own, and go on as if nothing had happened."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch

from rml_core.checkpoints import native

RML = Path(sys.executable).with_name("rml")
TIMES = {"samples_per_s", "test_samples_per_s", "train_seconds", "time_s", "memory_mb"}
BATCHES, EPOCHS = 80, 3

# Batches of some 10 ms: an epoch lasts so long that a signal meets it in the middle.
LAYERS = [
    {"class_name": "Conv2D", "config": {"name": "conv1", "filters": 32, "kernel_size": 3, "activation": "relu"}},
    {"class_name": "BatchNormalization", "config": {"name": "norm"}},
    {"class_name": "Dropout", "config": {"name": "drop1", "rate": 0.3}},
    {"class_name": "Conv2D", "config": {"name": "conv2", "filters": 32, "kernel_size": 5, "activation": "relu"}},
    {"class_name": "MaxPooling2D", "config": {"name": "pool", "pool_size": 4}},
    {"class_name": "SpatialDropout2D", "config": {"name": "drop2", "rate": 0.2}},
    {"class_name": "Flatten", "config": {"name": "flat"}},
    {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "log_softmax"}},
]


def run_file(data: Path) -> dict[str, Any]:
    return {
        "outfile": "out.txt",
        "num_epochs": EPOCHS,
        "seed": 3,
        "device": "cpu",
        "layers": LAYERS,
        "data": {
            "input_type": "images",
            "target_type": "labels",
            "input_path": str(data / "train"),
            "test_input_path": str(data / "test"),
            "test_output_path": "predictions",
            "batch_size": 2,
            "test_batch_size": 1,
            "grayscale": True,
            "preload": True,
            "transforms": [
                {"random_horizontal_flip": 0.5},
                {"random_vertical_flip": 0.5},
                {"normalize": {"mean": 0.3, "std": 0.5}},
            ],
        },
        "optimizer": {
            "type": "Adam",
            "learning_rate": 0.001,
            "lr_scheduler": {"type": "Exponential", "gamma": 0.9},
        },
        "loss": {"function": "NLL"},
        "checkpoints": {"save": "checkpoints"},
    }


@dataclass
class Place:
    """A folder with a run file, and the commands that are run there."""

    folder: Path
    section: dict[str, Any]
    environment: dict[str, str]
    untracked: bool = True
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str, threads: int = 2) -> subprocess.Popen[str]:
        file = self.folder / "run.json"
        file.write_text(json.dumps({"neural_network": self.section}))
        command = [str(RML), "run", str(file), *(["--untracked"] if self.untracked else []), *arguments]
        environment = {**self.environment, "OMP_NUM_THREADS": "1", "RML_THREADS": str(threads)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        return process

    def run(self, *arguments: str, threads: int = 2) -> tuple[int, str, str]:
        process = self.start(*arguments, threads=threads)
        output, errors = process.communicate(timeout=200)
        return process.returncode, output, errors

    def until(self, process: subprocess.Popen[str], ready: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not ready():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def stopped(self, number: int, ready: Callable[[], object], *arguments: str, threads: int = 2) -> tuple[str, str]:
        """Start a run, send it a signal as soon as it is `ready`; what it said."""
        process = self.start(*arguments, threads=threads)
        self.until(process, ready)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), (output, errors)
        return output, errors

    def reached(self, epoch: int) -> Callable[[], bool]:
        """The run is within `epoch`."""
        return lambda: self.position() > (epoch, 0)

    def position(self) -> tuple[int, int]:
        """(epoch, batch) of the last whole line of the log."""
        log = self.folder / "out_train.txt"
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        return (int(whole[-1].split()[0]), int(whole[-1].split()[1])) if whole else (0, 0)

    def evaluating(self, epoch: int) -> Callable[[], bool]:
        return lambda: any((self.folder / "predictions").glob(f".output_{epoch}.h5.*"))

    @property
    def checkpoints(self) -> set[str]:
        return {path.name for path in (self.folder / "checkpoints").iterdir() if path.suffix == ".pt"}

    def checkpoint(self, name: object) -> dict[str, Any]:
        return native.read(self.folder / "checkpoints" / f"model_checkpoint_{name}.pt", "")

    def log(self, name: str) -> list[list[str]]:
        return [line.split() for line in (self.folder / f"out_{name}.txt").read_text().splitlines()]

    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "out_metrics.jsonl").read_text().splitlines()]


def without(row: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in keys}


def same_bits(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_bits(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same_bits(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def assert_same(place: Place, reference: Place, epochs: int = EPOCHS) -> None:
    """Checkpoints, logs and predictions are those of a run that nothing has stopped; but for times."""
    last, wanted = place.checkpoint(epochs), reference.checkpoint(epochs)
    for key in ("network", "optimizer", "scheduler", "scaler", "random", "epoch", "batch", "classes"):
        assert same_bits(last[key], wanted[key]), key
    histories = [[without(row, TIMES) for row in json.loads(each["history"])] for each in (last, wanted)]
    assert histories[0] == histories[1]

    train, wanted_train = place.log("train"), reference.log("train")
    assert [(*line[:2], *line[3:]) for line in train] == [(*line[:2], *line[3:]) for line in wanted_train]
    test, wanted_test = place.log("test"), reference.log("test")
    assert [(line[0], *line[2:]) for line in test] == [(line[0], *line[2:]) for line in wanted_test]
    for lines, column in ((train, 2), (test, 1)):
        times = [float(line[column]) for line in lines]
        assert times == sorted(times)
    assert [without(row, TIMES) for row in place.metrics()] == [without(row, TIMES) for row in reference.metrics()]
    assert [row.keys() for row in place.metrics()] == [row.keys() for row in reference.metrics()]

    for epoch in range(1, epochs + 1):
        name = f"predictions/output_{epoch}.h5"
        with h5py.File(place.folder / name) as ours, h5py.File(reference.folder / name) as theirs:
            assert list(ours) == list(theirs) == ["left", "right"]
            for folder in ours:
                assert len(ours[folder]) == 40
                assert list(ours[folder]) == list(theirs[folder])
                assert all(np.array_equal(ours[folder][sample], theirs[folder][sample]) for sample in ours[folder])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    for role, each in (("train", BATCHES), ("test", 40)):
        random = np.random.default_rng(each)
        for label, column in (("left", 2), ("right", 22)):
            (folder / role / label).mkdir(parents=True)
            for index in range(each):
                picture = random.integers(0, 120, (40, 40), dtype=np.uint8)
                row = int(random.integers(0, 28))
                picture[row : row + 12, column : column + 12] = 200
                cv2.imwrite(str(folder / role / label / f"img{index}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def make(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Place]]:
    """Makes a folder with a run file; prepared samples are shared."""
    cache, places = tmp_path_factory.mktemp("cache"), []

    def place(environment: dict[str, str] | None = None, **changes: Any) -> Place:
        section = {**copy.deepcopy(run_file(data)), **changes}
        base = environment if environment is not None else dict(os.environ)
        made = Place(tmp_path_factory.mktemp("run"), section, {**base, "XDG_CACHE_HOME": str(cache)})
        made.untracked = environment is None
        places.append(made)
        return made

    yield place
    for each in places:
        for process in each.started:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture(scope="module")
def reference(make: Callable[..., Place]) -> Place:
    """A run that nothing stops."""
    place = make()
    status, output, errors = place.run(threads=1)
    assert (status, errors) == (0, "")
    assert place.checkpoints == {f"model_checkpoint_{epoch}.pt" for epoch in range(1, EPOCHS + 1)}
    first = ["classes left -> 0, right -> 1", "epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert [line.split("  ")[0] for line in output.splitlines()[:4]] == first
    return place


@pytest.mark.parametrize(
    ("threads", "threads_after", "preload", "preload_after"),
    [
        (3, 1, False, True),
        pytest.param(1, 3, True, False, marks=pytest.mark.slow),
        pytest.param(1, 1, False, False, marks=pytest.mark.slow),
        pytest.param(3, 3, True, True, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_in_the_middle_of_an_epoch_and_resumed_gives_the_same_bits(
    make: Callable[..., Place],
    reference: Place,
    threads: int,
    threads_after: int,
    preload: bool,
    preload_after: bool,
):
    place = make()
    place.section["data"]["preload"] = preload
    place.stopped(signal.SIGKILL, place.reached(2), threads=threads)
    epoch, batch = place.position()
    assert epoch == 2
    assert 0 < batch < BATCHES
    assert place.checkpoints == {"model_checkpoint_1.pt"}

    place.section["data"]["preload"] = preload_after
    status, output, errors = place.run("--resume", "auto", threads=threads_after)
    assert (status, errors) == (0, "")
    resumed = place.folder / "checkpoints" / "model_checkpoint_1.pt"
    assert output.splitlines()[0] == f"resuming {resumed} (after epoch 1)"
    assert place.checkpoints == reference.checkpoints
    assert_same(place, reference)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_goes_on_behind_its_last_batch(
    make: Callable[..., Place], reference: Place, number: signal.Signals
):
    place = make()
    output, errors = place.stopped(number, place.reached(2))
    interrupted = place.folder / "checkpoints" / "model_checkpoint_interrupted.pt"
    assert errors == f"interrupted; --resume auto goes on from {interrupted}\n"
    lines = output.splitlines()
    assert lines[0] == "classes left -> 0, right -> 1"
    assert lines[1].startswith("epoch 1/3  loss ")
    assert len(lines) == 2
    saved = place.checkpoint("interrupted")
    assert (saved["epoch"], saved["batch"]) == place.position()
    assert saved["epoch"] == 2
    assert 0 < saved["batch"] < BATCHES

    status, output, errors = place.run("--resume", "auto", "--set", "num_epochs=1")
    assert (status, errors) == (0, "")
    assert output.splitlines()[1] == "nothing is left to train: num_epochs is 1"
    assert place.checkpoints == {"model_checkpoint_1.pt", "model_checkpoint_interrupted.pt"}
    assert place.position() == (2, saved["batch"])

    status, output, errors = place.run("--resume", "auto", threads=3)
    assert (status, errors) == (0, "")
    assert output.splitlines()[0] == f"resuming {interrupted} (after batch {saved['batch']} of epoch 2)"
    assert place.checkpoints == reference.checkpoints
    assert_same(place, reference)


@pytest.mark.slow
def test_a_run_can_be_interrupted_again_and_killed_again(make: Callable[..., Place], reference: Place):
    place = make()
    place.stopped(signal.SIGINT, place.reached(1))
    first = place.checkpoint("interrupted")
    assert first["epoch"] == 1
    place.stopped(signal.SIGTERM, lambda: place.position() > (1, first["batch"]), "--resume", "auto")
    second = place.checkpoint("interrupted")
    assert (second["epoch"], second["batch"]) > (1, first["batch"])
    place.stopped(signal.SIGKILL, place.reached(second["epoch"] + 1), "--resume", "auto")
    assert "model_checkpoint_interrupted.pt" not in place.checkpoints
    assert place.run("--resume", "auto")[0] == 0
    assert_same(place, reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_stopped_while_it_evaluates_evaluates_that_epoch_once(
    make: Callable[..., Place], reference: Place, number: signal.Signals
):
    place = make()
    place.stopped(number, place.evaluating(2))
    assert {"model_checkpoint_1.pt", "model_checkpoint_2.pt"} <= place.checkpoints
    assert not (place.folder / "predictions" / "output_2.h5").exists()
    assert [line[0] for line in place.log("test")] == ["1"]
    assert place.position() == (2, BATCHES)
    status, _, errors = place.run("--resume", "auto")
    assert (status, errors) == (0, "")
    assert place.checkpoints == reference.checkpoints
    assert_same(place, reference)
    left = sorted(path.name for path in (place.folder / "predictions").iterdir())
    assert left == ["output_1.h5", "output_2.h5", "output_3.h5"]


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_run_at_once(make: Callable[..., Place]):
    place = make()
    # The first signal waits for the batch; the second finds a run that is already on its way out, or cuts it short.
    process = place.start()
    place.until(process, place.reached(2))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, (output, errors)
    assert "Traceback" not in errors
    assert place.run("--resume", "auto")[0] == 0


@pytest.mark.slow
def test_checkpoints_of_an_older_run_are_not_mixed_in(make: Callable[..., Place], reference: Place):
    place = make(num_epochs=5, seed=4)
    assert place.run()[0] == 0
    older = place.checkpoint(5)
    place.section.update(num_epochs=EPOCHS, seed=3)
    (place.folder / "out_train.txt").unlink()
    place.stopped(signal.SIGKILL, place.reached(2))
    assert place.checkpoint(5)["run_id"] == older["run_id"] == place.checkpoint(2)["run_id"]
    assert place.checkpoint(1)["run_id"] != older["run_id"]
    status, output, errors = place.run("--resume", "auto")
    assert (status, errors) == (0, "")
    resumed = place.folder / "checkpoints" / "model_checkpoint_1.pt"
    assert output.splitlines()[0] == f"resuming {resumed} (after epoch 1)"
    assert_same(place, reference)
    assert place.checkpoint(5)["run_id"] == older["run_id"]


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_anew_and_leaves_an_older_run_alone(
    make: Callable[..., Place], reference: Place
):
    place = make(num_epochs=2)
    assert place.run()[0] == 0
    place.section.update(num_epochs=EPOCHS)
    (place.folder / "out_train.txt").unlink()
    place.stopped(signal.SIGKILL, place.reached(1))
    status, output, errors = place.run("--resume", "auto")
    folder = place.folder / "checkpoints"
    assert status == 0
    assert errors == (f"passed over: an older run's checkpoints in {folder}; the latest run has left none\n")
    assert output.splitlines()[0] == f"nothing to resume in {folder}: the run starts anew"
    assert_same(place, reference)


@pytest.mark.slow
def test_more_epochs_are_added_to_a_finished_run(make: Callable[..., Place], reference: Place):
    place = make(num_epochs=2)
    assert place.run()[0] == 0
    place.section["num_epochs"] = EPOCHS
    status, output, errors = place.run("--resume", "auto")
    assert (status, errors) == (0, "")
    resumed = place.folder / "checkpoints" / "model_checkpoint_2.pt"
    assert output.splitlines()[0] == f"resuming {resumed} (after epoch 2)"
    assert place.checkpoints == reference.checkpoints
    assert_same(place, reference)


@pytest.mark.slow
def test_a_killed_run_goes_back_to_its_last_checkpoint_when_it_saves_every_second_epoch(
    make: Callable[..., Place], reference: Place
):
    place = make(checkpoints={"save": "checkpoints", "interval": 2})
    place.stopped(signal.SIGKILL, place.reached(3))
    assert place.checkpoints == {"model_checkpoint_2.pt"}
    assert place.run("--resume", "auto")[0] == 0
    assert place.checkpoints == {"model_checkpoint_2.pt", "model_checkpoint_3.pt"}
    assert_same(place, reference)


# --- with a Prefect server


def flow_run_state(environment: dict[str, str]) -> str:
    """Of the latest flow run."""
    request = urllib.request.Request(
        f"{environment['PREFECT_API_URL']}/flow_runs/filter",
        json.dumps({"sort": "START_TIME_DESC", "limit": 1}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        state: str = json.load(answer)[0]["state"]["type"]
    return state


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_tracked_run_is_interrupted_and_resumed(
    make: Callable[..., Place], reference: Place, prefect_server: dict[str, str], number: signal.Signals
):
    place = make(prefect_server)
    _, errors = place.stopped(number, place.reached(2))
    interrupted = place.folder / "checkpoints" / "model_checkpoint_interrupted.pt"
    assert errors == f"interrupted; --resume auto goes on from {interrupted}\n"
    saved = place.checkpoint("interrupted")
    assert (saved["epoch"], saved["batch"]) == place.position()
    assert flow_run_state(prefect_server) == "CRASHED"

    status, output, errors = place.run("--resume", "auto")
    assert (status, errors) == (0, "")
    watched, resuming, *_ = output.splitlines()
    assert watched.startswith("flow run ")
    assert resuming == f"resuming {interrupted} (after batch {saved['batch']} of epoch {saved['epoch']})"
    assert place.checkpoints == reference.checkpoints
    assert flow_run_state(prefect_server) == "COMPLETED"
    assert_same(place, reference)
