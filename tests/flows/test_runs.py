"""Whole runs, in this process: what they log, save and predict, against the same arithmetic by hand."""

from __future__ import annotations

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

from flows.phases import Outcome
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.layers.build import build
from rml_core.run import read

Section = dict[str, Any]
Run = Callable[..., Outcome]


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
            "test_samples_per_s", "classes", "precision", "recall", "f1", "support", "time_s", "memory_mb",
        }
    ] * 3  # fmt: skip
    for row, line, (epoch, _, loss, accuracy) in zip(metrics, outcome.history, tested, strict=True):
        assert row["epoch"] == line["epoch"] == epoch
        assert row["test_loss"] == line["test_loss"] == pytest.approx(loss, rel=1e-8)
        assert row["accuracy"] == line["accuracy"] == pytest.approx(accuracy, rel=1e-8)
        assert row["classes"] == ["left", "right"]
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
    assert [path.name for path, _ in outcome.places.written()] == ["model_checkpoint_1.pt", "output_1.h5"]


def test_every_kind_of_file_is_told(run: Run, section: Section, tmp_path: Path):
    """Those of the run itself: an earlier one in the same folder has left others."""
    folder = tmp_path / "run" / "checkpoints"
    section |= {"num_epochs": 5, "debug": True, "checkpoints": {"save": "checkpoints", "best": True}}
    run(section)
    (folder / "model_checkpoint_5.pt").rename(folder / "model_checkpoint_interrupted.pt")
    section["num_epochs"] = 2
    written = run(section).places.written()
    assert [(path.name, note) for path, note in written if path.name[:4] != "out_"] == [
        ("model_checkpoint_2.pt", "the newest of 2"),
        ("model_checkpoint_best.pt", ""),
        ("output_2.h5", ""),
        ("network.dot", ""),
        ("debug_2.json", ""),
    ]


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
        "  checkpoints/model_checkpoint_2.pt, the newest of 2",
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
