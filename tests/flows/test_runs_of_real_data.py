"""Whole runs by the command, on real data: digits as MNIST's files, an autoencoder of them, nuclei as volumes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.datasets import load_digits

Section = dict[str, Any]
Rml = Callable[..., tuple[int, str, str]]
Save = Callable[[str, Path, dict[str, Any]], None]


def layer(name: str, **config: Any) -> Section:
    return {"class_name": name, "config": {"name": name.lower(), **config}}


def conv(name: str, rank: int, filters: int, activation: str = "relu", kernel: int = 3) -> Section:
    config = {"name": name, "filters": filters, "kernel_size": kernel, "padding": "same", "activation": activation}
    return {"class_name": f"Conv{rank}D", "config": config}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's 1797 digits as MNIST's four files."""
    folder = tmp_path_factory.mktemp("digits")
    images, labels = load_digits(return_X_y=True)
    images, labels = (images.reshape(-1, 8, 8) * 15).astype(np.uint8), labels.astype(np.uint8)
    for role, part in (("train", slice(0, 1400)), ("t10k", slice(1400, None))):
        for name, array in (("images-idx3", images[part]), ("labels-idx1", labels[part])):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{role}-{name}-ubyte").write_bytes(head + array.tobytes())
    return folder


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out_metrics.jsonl").read_text().splitlines()]


def test_digits_are_learned(digits: Path, tmp_path: Path, run_file: Callable[..., Path], rml: Rml):
    section = {
        "outfile": "out.txt",
        "num_epochs": 8,
        "layers": [
            conv("a", 2, 16),
            layer("MaxPooling2D", pool_size=2),
            layer("Flatten"),
            layer("Dense", units=10, activation="log_softmax"),
        ],
        "data": {
            "type": "mnist",
            "input_path": str(digits),
            "test_input_path": str(digits),
            "test_output_path": "out",
            "batch_size": 32,
            "preload": True,
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.005},
        "loss": {"function": "NLL"},
    }
    file = run_file({"neural_network": section})
    assert rml("validate", file)[0] == 0
    status, output, errors = rml("plan", file, "--json")
    assert status == 0, errors
    planned = json.loads(output)
    assert planned["samples"] == {"train": 1400, "test": 397}
    assert (planned["sample_shape"], planned["output_shape"]) == ([1, 8, 8], [10])
    assert rml("run", file, "--untracked")[0] == 0
    last = history(tmp_path)[-1]
    assert last["accuracy"] > 0.88
    labels = load_digits(return_X_y=True)[1][1400:]
    with h5py.File(tmp_path / "out" / "output_8.h5") as predictions:
        assert len(predictions) == 397
        chosen = [predictions[f"{number:05d}"][()].argmax() for number in range(397)]
    assert last["accuracy"] == pytest.approx(np.mean(chosen == labels))


def test_an_autoencoder_learns_digits(digits: Path, tmp_path: Path, run_file: Callable[..., Path], rml: Rml):
    """A tenth of the training samples is held out."""
    section = {
        "outfile": "out.txt",
        "num_epochs": 6,
        "layers": [
            layer("Flatten"),
            {"class_name": "Dense", "config": {"name": "code", "units": 16, "activation": "relu"}},
            {"class_name": "Dense", "config": {"name": "pixels", "units": 64, "activation": "sigmoid"}},
            layer("Reshape", target_shape=[8, 8, 1]),
        ],
        "data": {
            "type": "mnist",
            "input_path": str(digits / "train-images-idx3-ubyte"),
            "target_path": str(digits / "train-images-idx3-ubyte"),
            "validation_split": 0.1,
            "batch_size": 32,
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.01},
        "loss": {"function": "MSE"},
    }
    assert rml("run", run_file({"neural_network": section}), "--untracked")[0] == 0
    losses = [row["test_loss"] for row in history(tmp_path)]
    images = load_digits().images / 16
    assert losses[-1] < 0.5 * images.var(0).mean()
    assert losses[-1] < losses[0] / 2


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A volume of 16 bits, without a channel axis, with bright balls in noise, and which voxels are theirs."""
    random = np.random.default_rng(seed)
    grid = np.indices((10, 12, 14))
    inside = np.zeros(grid.shape[1:], bool)
    for _ in range(3):
        centre = random.uniform(2, 9, 3)
        inside |= ((grid - centre.reshape(3, 1, 1, 1)) ** 2).sum(0) < 6
    return (inside * 900 + random.normal(300, 120, inside.shape)).clip(0).astype(np.uint16), inside.astype(np.uint8)


def test_volumes_are_segmented(tmp_path: Path, run_file: Callable[..., Path], rml: Rml, save_arrays: Save):
    for role, seeds in (("train", range(8)), ("test", range(8, 11))):
        pairs = {f"scan{seed}": blobs(seed) for seed in seeds}
        save_arrays("hdf5", tmp_path / f"{role}.h5", {
            **{f"volumes/{name}": pair[0] for name, pair in pairs.items()},
            **{f"masks/{name}": pair[1] for name, pair in pairs.items()},
        })  # fmt: skip
    section = {
        "outfile": "out.txt",
        "num_epochs": 6,
        "layers": [conv("a", 3, 4), conv("b", 3, 1, "sigmoid")],
        "data": {
            "type": "hdf5",
            "input_path": "train.h5:/volumes",
            "target_path": "train.h5:/masks",
            "test_input_path": "test.h5:/volumes",
            "test_target_path": "test.h5:/masks",
            "test_output_path": "out",
            "target_is_mask": True,
            "batch_size": 1,
            "input_transforms": [{"normalize": {"mean": 300, "std": 300}}],
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.02},
        "loss": {"function": "BCE"},
    }
    file = run_file({"neural_network": section})
    status, output, errors = rml("plan", file, "--json")
    assert status == 0, errors
    assert json.loads(output)["sample_shape"] == [1, 10, 12, 14]
    assert rml("run", file, "--untracked")[0] == 0
    last = history(tmp_path)[-1]
    assert last["accuracy"] > 0.8
    with h5py.File(tmp_path / "out" / "output_6.h5") as predictions:
        assert list(predictions["test.h5/volumes"]) == ["scan10", "scan8", "scan9"]
        found = {seed: predictions[f"test.h5/volumes/scan{seed}"][()] >= 0.5 for seed in (8, 9, 10)}
    right = sum((found[seed][0] & (blobs(seed)[1] > 0)).sum() for seed in found)
    there = sum(found[seed].sum() + blobs(seed)[1].sum() for seed in found)
    assert last["accuracy"] == pytest.approx(2 * right / there)


def test_a_network_that_cannot_take_the_samples_names_the_shapes(
    tmp_path: Path, run_file: Callable[..., Path], rml: Rml, save_arrays: Save
):
    save_arrays("npy", tmp_path / "in", {"a": np.zeros((2, 8, 8)), "b": np.zeros((2, 8, 8))})
    section: Section = {
        "layers": [conv("a", 1, 4)],
        "data": {"type": "numpy", "input_path": "in", "target_path": "in"},
        "optimizer": {"type": "SGD"},
        "loss": {"function": "MSE"},
    }
    status, _, errors = rml("validate", run_file({"neural_network": section}))
    assert status == 2
    assert "conv" in errors or "Conv1D" in errors
    assert "(8, 8, 2)" in errors.replace("None, ", "")
    section["layers"] = [conv("a", 2, 1)]
    status, _, errors = rml("validate", run_file({"neural_network": section}))
    assert errors.endswith(
        "neural_network.loss: MSE cannot compare the network's output (1, 8, 8) with the targets (2, 8, 8)\n"
        "    make the last layer give (2, 8, 8)\n"
    )
