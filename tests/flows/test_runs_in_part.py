"""Runs that train only, evaluate only or infer only, and those that begin with weights."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from flows.phases import Outcome
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.layers.build import build
from rml_core.run import read

Section = dict[str, Any]
Run = Callable[..., Outcome]


def rows(path: Path) -> list[list[float]]:
    return [[float(number) for number in line.split()] for line in path.read_text().splitlines()]


def initial(section: Section, folder: Path) -> dict[str, torch.Tensor]:
    """Weights as they are before the first update."""
    network = check(read({"neural_network": section}, folder)).network
    return {name: value.clone() for name, value in build(network, section.get("seed", 0)).state_dict().items()}


def saved(folder: Path, epoch: object) -> dict[str, Any]:
    return native.read(folder / "checkpoints" / f"model_checkpoint_{epoch}.pt", "")


def weights_of(folder: Path, epoch: object) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = saved(folder, epoch)["network"]
    return weights


def test_training_alone(run: Run, section: Section, tmp_path: Path):
    for key in ("test_input_path", "test_output_path"):
        del section["data"][key]
    outcome = run(section)
    folder = tmp_path / "run"
    assert (folder / "out_test.txt").read_text() == ""
    assert len(rows(folder / "out_train.txt")) == 18
    metrics = [json.loads(line) for line in (folder / "out_metrics.jsonl").read_text().splitlines()]
    keys = {"epoch", "train_loss", "learning_rate", "samples_per_s", "train_seconds", "time_s", "memory_mb"}
    assert [set(row) for row in metrics] == [keys] * 3
    assert [row["epoch"] for row in outcome.history] == [1, 2, 3]
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "out_metrics.jsonl", "out_test.txt", "out_train.txt",
    ]  # fmt: skip


def test_evaluation_alone_gives_what_training_gave(run: Run, section: Section, tmp_path: Path):
    section["data"]["transforms"].insert(0, {"random_horizontal_flip": 0.5})
    run(section, "trained")
    last = rows(tmp_path / "trained" / "out_test.txt")[-1]
    del section["data"]["input_path"]
    del section["optimizer"]
    section["checkpoints"] = {"load": str(tmp_path / "trained" / "checkpoints" / "model_checkpoint_3.pt")}
    outcome = run(section, "evaluated")
    folder = tmp_path / "evaluated"
    (row,) = rows(folder / "out_test.txt")
    assert (row[0], *row[2:]) == (1, *last[2:])
    assert outcome.classes == ("left", "right")
    assert (folder / "out_train.txt").read_text() == ""
    assert not (folder / "checkpoints").exists()
    with (
        h5py.File(folder / "predictions/output_1.h5") as ours,
        h5py.File(tmp_path / "trained/predictions/output_3.h5") as theirs,
    ):
        assert np.array_equal(ours["right/img4.png"], theirs["right/img4.png"])


def test_classes_are_those_of_the_checkpoint(run: Run, section: Section, pictures: Path, tmp_path: Path):
    """A folder with one of two classes: alone it would be class 0."""
    run(section, "trained")
    folder = tmp_path / "trained"
    with h5py.File(folder / "predictions" / "output_3.h5") as file:
        right = np.mean([file[f"right/img{i}.png"][()].argmax() == 1 for i in range(5)])
    (tmp_path / "some" / "right").mkdir(parents=True)
    for path in (pictures / "test" / "right").iterdir():
        (tmp_path / "some" / "right" / path.name).write_bytes(path.read_bytes())
    del section["data"]["input_path"]
    section["data"]["test_input_path"] = str(tmp_path / "some")
    section["checkpoints"] = {"load": str(folder / "checkpoints" / "model_checkpoint_3.pt")}
    outcome = run(section, "evaluated")
    assert outcome.history[0]["accuracy"] == pytest.approx(right)
    assert outcome.history[0]["support"] == [0, 5]


def test_inference_alone(run: Run, section: Section, pictures: Path, tmp_path: Path):
    run(section, "trained")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in (pictures / "test" / "right").iterdir():
        (flat / path.name).write_bytes(path.read_bytes())
    section["data"] = {
        "input_type": "images",
        "grayscale": True,
        "test_input_path": str(flat),
        "test_output_path": "predictions",
        "transforms": [{"normalize": {"mean": 0.3, "std": 0.5}}],
    }
    del section["optimizer"], section["loss"]
    section["checkpoints"] = {"load": str(tmp_path / "trained" / "checkpoints" / "model_checkpoint_3.pt")}
    outcome = run(section, "inferred")
    (line,) = (tmp_path / "inferred" / "out_test.txt").read_text().splitlines()
    assert re.fullmatch(r"1 \d+\.\d{6} nan nan", line)
    (metrics,) = [json.loads(line) for line in (tmp_path / "inferred" / "out_metrics.jsonl").read_text().splitlines()]
    assert (metrics["test_loss"], metrics["accuracy"]) == (None, None)
    assert math.isnan(outcome.history[0]["test_loss"])
    with (
        h5py.File(tmp_path / "inferred/predictions/output_1.h5") as ours,
        h5py.File(tmp_path / "trained/predictions/output_3.h5") as theirs,
    ):
        assert sorted(ours) == [f"img{i}.png" for i in range(5)]
        np.testing.assert_allclose(ours["img3.png"], theirs["right/img3.png"], rtol=1e-6)


def test_files_in_no_known_class_are_inferred(run: Run, section: Section, pictures: Path, tmp_path: Path):
    (tmp_path / "unknown" / "what").mkdir(parents=True)
    for path in (pictures / "test" / "right").iterdir():
        (tmp_path / "unknown" / "what" / path.name).write_bytes(path.read_bytes())
    section["data"]["test_input_path"] = str(tmp_path / "unknown")
    section["num_epochs"] = 2
    outcome = run(section)
    lines = (tmp_path / "run" / "out_test.txt").read_text().splitlines()
    assert [(line.split()[0], *line.split()[2:]) for line in lines] == [("1", "nan", "nan"), ("2", "nan", "nan")]
    assert not outcome.gallery.targets


def test_labels_by_tag(run: Run, section: Section, pictures: Path, tmp_path: Path):
    """The class is the folder below the tag, however deep the files lie."""
    for role, tag in (("train", "learn"), ("test", "exam")):
        for label in ("left", "right"):
            folder = tmp_path / "tagged" / role / tag / label / "camera" / "one"
            folder.mkdir(parents=True)
            for path in (pictures / role / label).iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
    run(section, "plain")
    section["data"].update(
        input_path=str(tmp_path / "tagged" / "train"),
        test_input_path=str(tmp_path / "tagged" / "test"),
        training_tag="learn",
        testing_tag="exam",
    )
    outcome = run(section, "tagged")
    assert outcome.classes == ("left", "right")
    plain, tagged = (weights_of(tmp_path / name, 3) for name in ("plain", "tagged"))
    assert all(torch.equal(plain[name], tagged[name]) for name in plain)
    with h5py.File(tmp_path / "tagged" / "predictions" / "output_3.h5") as file:
        assert "exam/left/camera/one/img0.png" in file


# --- weights to begin with


def test_transfer_learning(run: Run, section: Section, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    given = {
        "conv.weight": torch.full((4, 1, 3, 3), 0.25),
        "conv.bias": torch.tensor([0.0, 1.0, 2.0, 3.0]),
        "dense.weight": torch.zeros(5, 144),
        "dense.bias": torch.zeros(5),
        "dense_128_1.weight": torch.zeros(128, 3),
    }
    torch.save(given, tmp_path / "weights.pt")
    section["checkpoints"]["load"] = str(tmp_path / "weights.pt")
    section["num_epochs"] = 1
    section["layers"][0]["config"]["trainable"] = False
    with caplog.at_level("INFO", "rml"):
        run(section)
    assert caplog.messages[:4] == [
        "classes left -> 0, right -> 1",
        "Skipping layer dense: shape (5, 144) does not fit (2, 144)",
        "Skipping layer dense_128_1: not found in model",
        "Loaded 1 of the network's 2 layers with weights, skipped 2; as they began: dense",
    ]
    weights = weights_of(tmp_path / "run", 1)
    assert torch.equal(weights["conv.weight"], given["conv.weight"])
    assert torch.equal(weights["conv.bias"], given["conv.bias"])
    assert not torch.equal(weights["dense.weight"], initial(section, tmp_path)["dense.weight"])
    assert rows(tmp_path / "run" / "out_train.txt")[0][0] == 1


def test_loading_a_checkpoint_begins_at_epoch_1(run: Run, section: Section, tmp_path: Path):
    run(section, "first")
    trained = weights_of(tmp_path / "first", 3)
    section["checkpoints"]["load"] = str(tmp_path / "first" / "checkpoints" / "model_checkpoint_3.pt")
    section["optimizer"] = {"type": "SGD", "learning_rate": 1e-30}
    section["num_epochs"] = 1
    run(section, "second")
    assert [row[0] for row in rows(tmp_path / "second" / "out_train.txt")] == [1] * 6
    second = weights_of(tmp_path / "second", 1)
    assert all(torch.equal(second[name], trained[name]) for name in trained)
    assert saved(tmp_path / "second", 1)["run_id"] != saved(tmp_path / "first", 1)["run_id"]
