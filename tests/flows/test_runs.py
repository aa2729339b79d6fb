"""Whole runs, in this process: what they log, save and predict, against the same arithmetic by hand."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flows.phases import Outcome, as_it_is, execute
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.layers.build import build
from rml_core.run import read

Section = dict[str, Any]
Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Executes a section in the folder `name` of the test."""

    def executed(section: Section, name: str = "run") -> Outcome:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return execute(check(read({"neural_network": copy.deepcopy(section)}, folder)), as_it_is)

    return executed


@pytest.fixture
def section(classification: Section) -> Section:
    """Classification without anything random, whose network is small enough to be written by hand below."""
    section: Section = classification["neural_network"]
    section["layers"] = [layer for layer in section["layers"] if layer["class_name"] != "Dropout"]
    section["data"]["transforms"] = [{"normalize": {"mean": 0.3, "std": 0.5}}]
    section["data"]["shuffle"] = False
    return section


def rows(path: Path) -> list[list[float]]:
    return [[float(number) for number in line.split()] for line in path.read_text().splitlines()]


def pictures_of(folder: Path, count: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """(N, 1, H, W) as the network gets them, labels, names."""
    names = [f"{label}/img{index}.png" for label in ("left", "right") for index in range(count)]
    arrays = [cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for name in names]
    inputs = (torch.tensor(np.stack(arrays), dtype=torch.float32)[:, None] / 255 - 0.3) / 0.5
    return inputs, torch.arange(2).repeat_interleave(count), names


def by_hand(weights: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """The network of `section`. Flatten of Keras runs over (H, W, C)."""
    features = F.relu(F.conv2d(inputs, weights["conv.weight"], weights["conv.bias"], padding=1))
    features = F.max_pool2d(features, 2).permute(0, 2, 3, 1).flatten(1)
    return F.log_softmax(F.linear(features, weights["dense.weight"], weights["dense.bias"]), 1)


def initial(section: Section, folder: Path) -> dict[str, torch.Tensor]:
    """Weights as they are before the first update."""
    network = check(read({"neural_network": section}, folder)).network
    return {name: value.clone() for name, value in build(network, section.get("seed", 0)).state_dict().items()}


def saved(folder: Path, epoch: object) -> dict[str, Any]:
    return native.read(folder / "checkpoints" / f"model_checkpoint_{epoch}.pt", "")


def weights_of(folder: Path, epoch: object) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = saved(folder, epoch)["network"]
    return weights


# --- logs, predictions, checkpoints


def test_the_first_updates_are_those_of_torch(run: Run, section: Section, pictures: Path, tmp_path: Path):
    """The loss before the update, the norm of all gradients, Adam, the schedule: two epochs of two batches."""
    section.update(num_epochs=2)
    section["data"]["batch_size"] = 16
    outcome = run(section)
    weights = {name: value.requires_grad_() for name, value in initial(section, tmp_path).items()}
    optimizer = torch.optim.Adam(weights.values(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    inputs, labels, _ = pictures_of(pictures / "train", 12)
    expected = []
    for epoch in (1, 2):
        for batch, part in ((1, slice(0, 16)), (2, slice(16, 24))):
            loss = F.nll_loss(by_hand(weights, inputs[part]), labels[part])
            optimizer.zero_grad()
            loss.backward()
            norm = torch.cat([weight.grad.flatten() for weight in weights.values() if weight.grad is not None]).norm()
            expected.append([epoch, batch, loss.item(), norm.item()])
            optimizer.step()
        schedule.step()
    logged = rows(tmp_path / "run" / "out_train.txt")
    assert [row[:2] for row in logged] == [row[:2] for row in expected]
    np.testing.assert_allclose([row[3:] for row in logged], [row[2:] for row in expected], rtol=2e-4)
    for name, value in weights_of(tmp_path / "run", 2).items():
        torch.testing.assert_close(value, weights[name].detach(), rtol=1e-4, atol=2e-6)

    epochs = [row["train_loss"] for row in outcome.history]
    of_epochs = [(16 * expected[at][2] + 8 * expected[at + 1][2]) / 24 for at in (0, 2)]
    np.testing.assert_allclose(epochs, of_epochs, rtol=2e-4)
    assert [row["learning_rate"] for row in outcome.history] == [0.01, 0.01 * 0.9]


def test_logs_to_the_letter(run: Run, section: Section, tmp_path: Path):
    outcome = run(section)
    folder = tmp_path / "run"
    number = r"-?\d+(\.\d+)?(e[-+]\d+)?"
    train, test = ((folder / f"out_{name}.txt").read_text() for name in ("train", "test"))
    assert re.fullmatch(rf"(\d+ \d+ \d+\.\d{{6}} {number} {number}\n){{18}}", train)
    assert re.fullmatch(rf"(\d+ \d+\.\d{{6}} {number} {number}\n){{3}}", test)
    logged = rows(folder / "out_train.txt")
    assert [row[:2] for row in logged] == [[epoch, batch] for epoch in (1, 2, 3) for batch in range(1, 7)]
    times = [row[2] for row in logged]
    assert times == sorted(times)
    assert times[0] >= 0
    tested = rows(folder / "out_test.txt")
    assert [row[0] for row in tested] == [1, 2, 3]
    assert all(times[6 * epoch - 1] <= row[1] for epoch, row in enumerate(tested, 1))
    assert [row[1] for row in tested] == sorted(row[1] for row in tested)

    metrics = [json.loads(line) for line in (folder / "out_metrics.jsonl").read_text().splitlines()]
    assert [set(row) for row in metrics] == [
        {
            "epoch", "train_loss", "learning_rate", "samples_per_s", "train_seconds", "test_loss", "accuracy",
            "test_samples_per_s", "precision", "recall", "support", "time_s", "memory_mb",
        }
    ] * 3  # fmt: skip
    for row, line, (epoch, _, loss, accuracy) in zip(metrics, outcome.history, tested, strict=True):
        assert row["epoch"] == line["epoch"] == epoch
        assert row["test_loss"] == line["test_loss"] == pytest.approx(loss, rel=1e-8)
        assert row["accuracy"] == line["accuracy"] == pytest.approx(accuracy, rel=1e-8)
        assert row["support"] == [5, 5]
        assert accuracy == pytest.approx(np.mean(row["recall"]))


def test_predictions_are_the_networks_output(run: Run, section: Section, pictures: Path, tmp_path: Path):
    run(section)
    folder = tmp_path / "run"
    inputs, labels, names = pictures_of(pictures / "test", 5)
    assert sorted(path.name for path in (folder / "predictions").iterdir()) == [f"output_{e}.h5" for e in (1, 2, 3)]
    for epoch, _, loss, accuracy in rows(folder / "out_test.txt"):
        expected = by_hand(weights_of(folder, int(epoch)), inputs)
        with h5py.File(folder / "predictions" / f"output_{int(epoch)}.h5") as file:
            assert sorted(f"{label}/{name}" for label in file for name in file[label]) == sorted(names)
            predicted = np.stack([file[name][()] for name in names])
        assert predicted.dtype == np.float32
        assert predicted.shape == (10, 2)
        np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-5)
        # Batches of 8 and 2: the loss is the mean over samples, not over batches.
        assert loss == pytest.approx(F.nll_loss(expected, labels).item(), rel=1e-5)
        assert accuracy == pytest.approx((expected.argmax(1) == labels).double().mean().item())


def test_random_transforms_and_dropout_are_for_training_alone(
    run: Run, classification: Section, section: Section, pictures: Path, tmp_path: Path
):
    section["layers"].insert(2, {"class_name": "Dropout", "config": {"name": "drop", "rate": 0.5}})
    section["data"]["transforms"].insert(0, {"random_horizontal_flip": 1.0})
    section["num_epochs"] = 1
    run(section)
    folder = tmp_path / "run"
    inputs, _, names = pictures_of(pictures / "test", 5)
    with h5py.File(folder / "predictions" / "output_1.h5") as file:
        predicted = np.stack([file[name][()] for name in names])
    np.testing.assert_allclose(predicted, by_hand(weights_of(folder, 1), inputs), rtol=1e-5, atol=1e-5)


def test_the_same_file_gives_the_same_bits_and_another_seed_does_not(run: Run, classification: Section, tmp_path: Path):
    section = classification["neural_network"]
    section["num_epochs"] = 2
    for name, seed, preload in (("one", 5, True), ("two", 5, False), ("other", 6, True)):
        section["seed"] = seed
        section["data"]["preload"] = preload
        run(section, name)
    one, two, other = (weights_of(tmp_path / name, 2) for name in ("one", "two", "other"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    logs = [[row[3:] for row in rows(tmp_path / name / "out_train.txt")] for name in ("one", "two", "other")]
    assert logs[0] == logs[1]
    assert logs[0] != logs[2]


def test_the_order_of_training(run: Run, section: Section, tmp_path: Path):
    """With a learning rate that moves nothing, a sample's loss tells which one it is."""
    section["data"]["batch_size"] = 1
    section["optimizer"] = {"type": "SGD", "learning_rate": 1e-30}
    section["num_epochs"] = 2
    epochs = {}
    for shuffle in (False, True):
        section["data"]["shuffle"] = shuffle
        run(section, str(shuffle))
        losses = [row[3] for row in rows(tmp_path / str(shuffle) / "out_train.txt")]
        epochs[shuffle] = losses[:24], losses[24:]
    assert epochs[False][0] == epochs[False][1]
    assert epochs[True][0] != epochs[True][1]
    assert epochs[True][0] != epochs[False][0]
    assert sorted(epochs[True][0]) == sorted(epochs[True][1]) == sorted(epochs[False][0])


def test_what_a_run_without_an_outfile_leaves(run: Run, section: Section, tmp_path: Path):
    del section["outfile"]
    section["num_epochs"] = 1
    outcome = run(section)
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert left == ["checkpoints", "predictions"]
    assert [path.name for path in outcome.places.written()] == ["model_checkpoint_1.pt", "output_1.h5"]


def test_a_new_run_replaces_the_logs(run: Run, section: Section, tmp_path: Path):
    run(section)
    section["num_epochs"] = 1
    run(section)
    assert [row[0] for row in rows(tmp_path / "run" / "out_train.txt")] == [1] * 6
    assert [row[0] for row in rows(tmp_path / "run" / "out_test.txt")] == [1]


def test_debug_information(run: Run, section: Section, tmp_path: Path):
    section.update(debug=True, debug_interval=2, num_epochs=5)
    run(section)
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.glob("debug_*")) == ["debug_2.json", "debug_4.json"]
    dot = (folder / "network.dot").read_text()
    for text in ("digraph", "conv", "pool", "flat", "dense"):
        assert text in dot
    table = json.loads((folder / "debug_4.json").read_text())
    weights = weights_of(folder, 4)
    assert set(table) == set(weights)
    for name, figures in table.items():
        value = weights[name].double()
        expected = [value.mean(), value.std(correction=0), value.min(), value.max(), value.norm()]
        keys = ["mean", "std", "min", "max", "norm"]
        assert list(figures["parameter"].values()) == pytest.approx([each.item() for each in expected])
        assert list(figures["parameter"]) == list(figures["gradient"]) == keys
    # The gradients are those of the epoch's last batch.
    norm = math.sqrt(sum(figures["gradient"]["norm"] ** 2 for figures in table.values()))
    logged = [row for row in rows(folder / "out_train.txt") if row[0] == 4]
    assert norm == pytest.approx(logged[-1][4], rel=1e-5)


# --- optimizer


def test_clip_norm_scales_the_update_and_not_what_is_logged(run: Run, section: Section, tmp_path: Path):
    section["num_epochs"] = 1
    section["data"]["batch_size"] = 24
    section["optimizer"] = {"type": "SGD", "learning_rate": 0.5}
    run(section, "free")
    norm = rows(tmp_path / "free" / "out_train.txt")[0][4]
    section["optimizer"]["clip_norm"] = norm / 4
    run(section, "clipped")
    assert rows(tmp_path / "clipped" / "out_train.txt")[0][3:] == rows(tmp_path / "free" / "out_train.txt")[0][3:]
    before = initial(section, tmp_path)
    free, clipped = (weights_of(tmp_path / name, 1) for name in ("free", "clipped"))
    for name, value in before.items():
        torch.testing.assert_close(clipped[name] - value, (free[name] - value) / 4, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("batch", "accumulate"), [(12, 2), (8, 3), (6, 4), (6, 9)])
def test_accumulated_batches_are_one_update(run: Run, section: Section, tmp_path: Path, batch: int, accumulate: int):
    """Of parts of equal size; what an epoch has left over at its end is an update too."""
    section["num_epochs"] = 1
    section["optimizer"] = {"type": "SGD", "learning_rate": 0.5, "momentum": 0.9}
    section["data"]["batch_size"] = 24
    run(section, "whole")
    section["data"]["batch_size"] = batch
    section["optimizer"]["accumulate"] = accumulate
    run(section, "parts")
    whole, parts = (weights_of(tmp_path / name, 1) for name in ("whole", "parts"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6)
    logged = rows(tmp_path / "parts" / "out_train.txt")
    assert len(logged) == 24 // batch
    assert np.mean([row[3] for row in logged]) == pytest.approx(rows(tmp_path / "whole" / "out_train.txt")[0][3])
    # The norm is that of the gradients that are there: at the last of them those of the update.
    assert logged[-1][4] == pytest.approx(rows(tmp_path / "whole" / "out_train.txt")[0][4], rel=1e-4)


@pytest.mark.parametrize("precision", ["double", "bf16", "fp16"])
def test_precision(run: Run, section: Section, tmp_path: Path, precision: str):
    section["num_epochs"] = 2
    run(section, "single")
    section["precision"] = precision
    run(section, precision)
    weights = weights_of(tmp_path / precision, 2)
    expected = torch.float64 if precision == "double" else torch.float32
    assert {value.dtype for value in weights.values()} == {expected}
    single, other = (
        np.array([row[3:] for row in rows(tmp_path / name / "out_train.txt")]) for name in ("single", precision)
    )
    if precision == "fp16":
        # The scale begins too large for the first gradients: they are left out, and the scale is halved.
        assert np.isfinite(other[:, 0]).all()
        overflowed = int(np.isinf(other[:, 1]).sum())
        assert saved(tmp_path / precision, 2)["scaler"]["scale"] == 65536.0 / 2**overflowed
        np.testing.assert_allclose(other[0, 0], single[0, 0], rtol=0.02)
    else:
        tolerance = {"double": 1e-3, "bf16": 0.1}[precision]
        np.testing.assert_allclose(other, single, rtol=tolerance, atol=tolerance)
    assert (other != single).any()
    with h5py.File(tmp_path / precision / "predictions" / "output_2.h5") as file:
        assert file["left/img0.png"].dtype == np.float32
    state = saved(tmp_path / precision, 2)["scaler"]
    assert bool(state) is (precision == "fp16")


# --- train only, evaluate only, infer only


def test_training_alone(run: Run, section: Section, tmp_path: Path):
    for key in ("test_input_path", "test_output_path"):
        del section["data"][key]
    outcome = run(section)
    folder = tmp_path / "run"
    assert (folder / "out_test.txt").read_text() == ""
    assert len(rows(folder / "out_train.txt")) == 18
    metrics = [json.loads(line) for line in (folder / "out_metrics.jsonl").read_text().splitlines()]
    keys = {"epoch", "train_loss", "learning_rate", "samples_per_s", "train_seconds"}
    assert [keys <= set(row) and "test_loss" not in row for row in metrics] == [True] * 3
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


# --- masks and images as targets


def write_masks(folder: Path, values: list[int], each: int = 6) -> None:
    """Pictures of stripes, brighter for each class, and masks that have `values` for the classes."""
    for role, seed in (("train", 1), ("test", 2)):
        random = np.random.default_rng(seed)
        for kind in ("images", "masks"):
            (folder / role / kind).mkdir(parents=True)
        for index in range(each):
            classes = random.integers(0, len(values), (8, 1)) * np.ones((1, 8), np.int64)
            picture = 60 * classes + random.integers(0, 20, (8, 8))
            cv2.imwrite(str(folder / role / "images" / f"{index}.png"), picture.astype(np.uint8))
            mask = np.array(values, np.uint8)[classes]
            cv2.imwrite(str(folder / role / "masks" / f"{index}.png"), mask)


def segmentation(folder: Path, channels: int, activation: str, loss: Section) -> Section:
    return {
        "outfile": "out.txt",
        "num_epochs": 2,
        "layers": [
            {
                "class_name": "Conv2D",
                "config": {"name": "conv", "filters": channels, "kernel_size": 1, "activation": activation},
            }
        ],
        "data": {
            "type": "images",
            "input_path": str(folder / "train" / "images"),
            "target_path": str(folder / "train" / "masks"),
            "test_input_path": str(folder / "test" / "images"),
            "test_target_path": str(folder / "test" / "masks"),
            "test_output_path": "predictions",
            "grayscale": True,
            "target_is_mask": True,
            "test_batch_size": 4,
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.1},
        "loss": loss,
        "checkpoints": {"save": "checkpoints"},
    }


def read_all(folder: Path, count: int = 6) -> np.ndarray:
    return np.stack([cv2.imread(str(folder / f"{index}.png"), cv2.IMREAD_GRAYSCALE) for index in range(count)])


def probabilities(weights: dict[str, torch.Tensor], folder: Path) -> torch.Tensor:
    inputs = torch.tensor(read_all(folder), dtype=torch.float32)[:, None] / 255
    return F.conv2d(inputs, weights["conv.weight"], weights["conv.bias"])


def nll(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, classes, ignore_index=-100)


def bce(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy(logits.sigmoid()[:, 0], classes.float())


def dice_of(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return 1 - (2 * (p * t).sum() + 1e-6) / (p.sum() + t.sum() + 1e-6)


def dice_one(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return dice_of(logits.sigmoid()[:, 0], classes.float())


def dice_many(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    p = logits.softmax(1)
    there = [c for c in range(p.shape[1]) if (classes == c).any() or (p.argmax(1) == c).any()]
    return torch.stack([dice_of(p[:, c], (classes == c).float()) for c in there]).mean()


CASES: dict[str, tuple[list[int], list[int] | None, int, str, Section, Any]] = {
    # mask values, how they are mapped, channels, activation, loss, and the loss by hand
    "0 and 255": ([0, 255], [0, 255], 1, "sigmoid", {"function": "BCE"}, bce),
    "0 and 1": ([0, 1], None, 1, "sigmoid", {"function": "BCE"}, bce),
    "foreground": ([0, 255], [0, 255], 1, "sigmoid", {"function": "Dice"}, dice_one),
    "two channels": ([0, 255], [0, 255], 2, "softmax", {"function": "Dice"}, dice_many),
    "classes": ([0, 1, 2], None, 3, "log_softmax", {"function": "NLL"}, nll),
    "1, 2, 3": ([1, 2, 3], [1, 2, 3], 3, "log_softmax", {"function": "NLL"}, nll),
    "ignored": ([10, 255, 20, 30], [10, 20, 30], 3, "log_softmax", {"function": "NLL", "ignore_index": 255}, nll),
    "spare channel": ([0, 2], None, 4, "log_softmax", {"function": "NLL"}, nll),
}


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_masks(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, preload: bool):
    values, mapped, channels, activation, loss, objective = CASES[name]
    write_masks(tmp_path / "data", values)
    section = segmentation(tmp_path / "data", channels, activation, loss)
    section["data"]["preload"] = preload
    with caplog.at_level("INFO", "rml"):
        outcome = run(section)
    folder = tmp_path / "run"
    ignored = loss.get("ignore_index")
    raw = read_all(tmp_path / "data" / "train" / "masks").astype(np.int64)
    order = mapped if mapped is not None else list(range(max(channels, 2)))

    def classes_of(raw: np.ndarray) -> torch.Tensor:
        classes = np.full(raw.shape, -100)
        for index, value in enumerate(order):
            classes[raw == value] = index
        assert ((classes >= 0) | (raw == ignored)).all()
        return torch.tensor(classes)

    # All six training samples are one batch: its loss is that of the initial weights.
    first = objective(
        probabilities(initial(section, tmp_path), tmp_path / "data" / "train" / "images"), classes_of(raw)
    )
    assert rows(folder / "out_train.txt")[0][3] == pytest.approx(first.item(), rel=1e-5)

    said = [line for line in caplog.messages if line.startswith("mask values")]
    if mapped is None:
        assert said == []
    else:
        assert said == ["mask values " + ", ".join(f"{value} -> {index}" for index, value in enumerate(mapped))]
    assert saved(folder, 2)["mask_values"] == mapped

    # Dice over the whole test set, of the classes that are in targets or predictions.
    logits = probabilities(weights_of(folder, 2), tmp_path / "data" / "test" / "images")
    chosen = (logits[:, 0] >= 0).long() if channels == 1 else logits.argmax(1)
    target = classes_of(read_all(tmp_path / "data" / "test" / "masks").astype(np.int64))
    counted = target >= 0
    scores = []
    for c in range(max(channels, 2)):
        p, t = (chosen == c) & counted, target == c
        if p.any() or t.any():
            scores.append(2 * (p & t).sum().item() / (p.sum().item() + t.sum().item()))
    expected = scores[-1] if channels == 1 else float(np.mean(scores))
    assert rows(folder / "out_test.txt")[-1][3] == pytest.approx(expected, rel=1e-6)
    assert outcome.history[-1]["accuracy"] == pytest.approx(expected, rel=1e-6)
    with h5py.File(folder / "predictions" / "output_2.h5") as file:
        assert file["3.png"].shape == (channels, 8, 8)


def test_a_mapping_of_masks_goes_with_the_checkpoint(run: Run, tmp_path: Path):
    """Test masks of which one has a single value: alone it would be class 0."""
    write_masks(tmp_path / "data", [7, 99])
    section = segmentation(tmp_path / "data", 2, "log_softmax", {"function": "NLL"})
    run(section, "trained")
    for path in (tmp_path / "data" / "test" / "masks").iterdir():
        cv2.imwrite(str(path), np.full((8, 8), 99, np.uint8))
    del section["data"]["input_path"], section["data"]["target_path"]
    section["checkpoints"] = {"load": "../trained/checkpoints/model_checkpoint_2.pt"}
    outcome = run(section, "evaluated")
    logits = probabilities(weights_of(tmp_path / "trained", 2), tmp_path / "data" / "test" / "images")
    expected = F.cross_entropy(logits, torch.ones(6, 8, 8, dtype=torch.int64))
    assert outcome.history[0]["test_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_images_as_targets(run: Run, tmp_path: Path):
    """An autoencoder: targets are scaled as inputs are, figures are errors, there is no accuracy."""
    write_masks(tmp_path / "data", [0, 1])
    section = segmentation(tmp_path / "data", 1, "linear", {"function": "MSE"})
    for key in ("target_path", "test_target_path"):
        section["data"][key] = section["data"][key].replace("masks", "images")
    del section["data"]["target_is_mask"]
    outcome = run(section)
    folder = tmp_path / "run"
    targets = torch.tensor(read_all(tmp_path / "data" / "test" / "images"), dtype=torch.float32)[:, None] / 255
    error = probabilities(weights_of(folder, 2), tmp_path / "data" / "test" / "images") - targets
    line = (folder / "out_test.txt").read_text().splitlines()[-1]
    assert re.fullmatch(r"2 \d+\.\d{6} \S+ nan", line)
    assert float(line.split()[2]) == pytest.approx(error.square().mean().item(), rel=1e-4)
    figures = outcome.history[-1]
    assert figures["mae"] == pytest.approx(error.abs().mean().item(), rel=1e-4)
    assert figures["rmse"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-4)


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
        "Loaded 1 of the network's 2 layers with weights, skipped 2",
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


# --- the command


def test_the_command_says_what_happens_and_what_it_wrote(
    rml: Callable[..., tuple[int, str, str]],
    classification: Section,
    run_file: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    classification["neural_network"]["num_epochs"] = 2
    status, output, errors = rml("run", run_file(classification), "--untracked")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    number = r"[\d.e+-]+"
    assert lines.pop(0) == "classes left -> 0, right -> 1"
    for epoch, line in enumerate(lines[:2], 1):
        wanted = rf"epoch {epoch}/2  loss {number}  test loss {number}  accuracy [01]\.\d{{4}}  \d+ samples/s"
        assert re.fullmatch(wanted, line)
    assert re.fullmatch(r"done in \d+\.\d s; written:", lines[2])
    assert lines[3:] == [
        "  out_train.txt",
        "  out_test.txt",
        "  out_metrics.jsonl",
        "  out_report.png",
        "  checkpoints/model_checkpoint_2.pt",
        "  predictions/output_2.h5",
    ]
    picture = cv2.imread(str(tmp_path / "out_report.png"))
    assert picture.shape[1] == 960
    assert picture.std() > 10


def test_settings_of_the_command(
    rml: Callable[..., tuple[int, str, str]], classification: Section, run_file: Callable[..., Path], tmp_path: Path
):
    settings = ["num_epochs=1", "data.batch_size=24", "optimizer.type=sgd", "outfile=set.txt"]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    assert rml("run", run_file(classification), "--untracked", *arguments)[0] == 0
    assert [row[:2] for row in rows(tmp_path / "set_train.txt")] == [[1, 1]]
