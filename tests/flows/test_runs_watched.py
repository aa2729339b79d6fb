"""What watches a training run: early stopping, the best and the newest checkpoints, debug information, figures of
classes and values; by the command, and the same after a resume."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from sklearn import metrics as sklearn

from flows.phases import Outcome
from rml_core.checkpoints import native

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out_metrics.jsonl").read_text().splitlines()]


def of_class(row: dict[str, Any], name: str) -> dict[Any, float]:
    return dict(zip(row["classes"], row[name], strict=True))


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_a_watched_run_that_was_interrupted_is_the_same(
    begin: Callable[..., Outcome],
    assert_same: Callable[[Path, Path], None],
    classification: dict[str, Any],
    run_file: RunFile,
    rml: Rml,
    tmp_path: Path,
    metric: str,
):
    """In the middle of its patience, and of an epoch: it ends after the same one, and has debugged the same."""
    section = classification["neural_network"]
    section.update(num_epochs=9, debug=True)
    section["early_stopping"] = {"metric": metric, "patience": 2, "min_delta": 1e9}
    section["checkpoints"].update(best=True, keep=2)
    section["optimizer"]["lr_scheduler"]["verbose"] = True
    (tmp_path / "whole").mkdir()
    status, output, errors = rml("run", run_file(classification, "whole/run.json"), "--untracked")
    assert status == 0
    assert "epoch 2: learning rate 0.01 -> 0.009\n" in output + errors
    assert f"early stopping: {metric} has not improved for 2 epochs\n" in output + errors
    with pytest.raises(KeyboardInterrupt):
        begin("stopped", before="train epoch 3")
    begin("stopped", resuming="auto")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert_same(stopped, whole)
    names = sorted(path.name for path in (whole / "checkpoints").glob("*.pt"))
    assert names == ["model_checkpoint_2.pt", "model_checkpoint_3.pt", "model_checkpoint_best.pt"]
    assert sorted(path.name for path in (stopped / "checkpoints").glob("*.pt")) == names
    bests = [native.read(native.best_path(each / "checkpoints"), "")["epoch"] for each in (whole, stopped)]
    judged = [-row["accuracy"] if metric == "accuracy" else row["test_loss"] for row in metrics(whole)]
    assert bests == [judged.index(min(judged)) + 1] * 2
    for epoch in (1, 2, 3):
        name = f"debug_{epoch}.json"
        assert (whole / name).read_text() == (stopped / name).read_text()
    table = json.loads((stopped / "debug_3.json").read_text())
    weights = native.read(native.epoch_path(stopped / "checkpoints", 3), "")["network"]
    for key, values in weights.items():
        wide = values.double()
        expected = [wide.mean(), wide.std(correction=0), wide.min(), wide.max(), wide.norm()]
        assert list(table[key]["parameter"].values()) == pytest.approx([float(each) for each in expected])
    assert (whole / "network.dot").read_text() == (stopped / "network.dot").read_text()


def test_the_logs_reach_the_disk_before_the_checkpoint(
    begin: Callable[..., Outcome], classification: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    """It says how far the run is: a power cut may not leave logs that end earlier."""
    synced = []

    def noted(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        # What is unfinished has another name each time.
        synced.append(re.sub(rf"\.[0-9a-f]{{12}}\.{os.getpid()}$", "", name))

    monkeypatch.setattr(os, "fsync", noted)
    classification["neural_network"]["num_epochs"] = 2
    with pytest.raises(KeyboardInterrupt):
        begin("run", after="train epoch 2")
    logs = ["out_train.txt", "out_test.txt", "out_metrics.jsonl"]
    # What the prepared samples are written with comes before.
    synced = synced[synced.index("out_train.txt") :]
    saved = [f".model_checkpoint_{name}.pt" for name in ("1", "2", "interrupted")]
    assert synced == [*logs, saved[0], "checkpoints", *logs, saved[1], "checkpoints", *logs, saved[2], "checkpoints"]


def test_figures_of_labels_are_scikit_learns(
    classification: dict[str, Any], run_file: RunFile, rml: Rml, tmp_path: Path
):
    """From the predictions that the run has written."""
    section = classification["neural_network"]
    section["num_epochs"] = 1
    assert rml("run", run_file(classification), "--untracked")[0] == 0
    (row,) = metrics(tmp_path)
    true, predicted = [], []
    with h5py.File(tmp_path / "predictions" / "output_1.h5") as file:
        for name in ("left", "right"):
            for values in file[name].values():
                true.append(name)
                predicted.append(("left", "right")[int(np.argmax(values))])
    options: dict[str, Any] = {"labels": ["left", "right"], "zero_division": np.nan}
    expected = sklearn.precision_recall_fscore_support(true, predicted, **options)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        found = {key: np.nan if value is None else value for key, value in of_class(row, name).items()}
        assert found == pytest.approx(dict(zip(("left", "right"), values, strict=True)), nan_ok=True)
    assert row["accuracy"] == pytest.approx(sklearn.accuracy_score(true, predicted))


def pictures(folder: Path, values: tuple[int, ...]) -> None:
    """Inputs, masks of `values`, and images to compare with."""
    rng = np.random.default_rng(len(values))
    for part in ("inputs", "masks", "images"):
        (folder / part).mkdir(parents=True)
    for index in range(6):
        image = rng.integers(0, 255, (8, 8), dtype=np.uint8)
        mask = np.array(values, np.uint8)[np.digitize(image, np.linspace(0, 255, len(values) + 1)[1:-1])]
        for part, content in (("inputs", image), ("masks", mask), ("images", 255 - image)):
            cv2.imwrite(str(folder / part / f"{index}.png"), content)


def segmentation(folder: Path, targets: str, channels: int, last: str, loss: str) -> dict[str, Any]:
    convolution = {"filters": channels, "kernel_size": 3, "padding": "same", "activation": last}
    inputs, compared = str(folder / "inputs"), str(folder / targets)
    section: dict[str, Any] = {
        "outfile": "out.txt",
        "layers": [{"class_name": "Conv2D", "config": {"name": "conv", **convolution}}],
        "data": {
            "type": "images",
            "input_path": inputs,
            "target_path": compared,
            "test_input_path": inputs,
            "test_target_path": compared,
            "test_output_path": "predictions",
            "batch_size": 3,
            "test_batch_size": 4,
            "grayscale": True,
            "target_is_mask": targets == "masks",
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.05},
        "loss": {"function": loss},
    }
    return {"neural_network": section}


def predictions(folder: Path) -> np.ndarray:
    with h5py.File(folder / "predictions" / "output_1.h5") as file:
        return np.stack([file[f"{index}.png"][()] for index in range(6)])


@pytest.mark.parametrize(
    ("values", "channels", "last", "loss"),
    [((0, 128, 255), 3, "softmax", "Dice"), ((0, 255), 1, "sigmoid", "BCE"), ((0, 1, 2), 3, "log_softmax", "NLL")],
)
def test_figures_of_masks_are_scikit_learns(
    run_file: RunFile, rml: Rml, tmp_path: Path, values: tuple[int, ...], channels: int, last: str, loss: str
):
    pictures(tmp_path / "data", values)
    assert rml("run", run_file(segmentation(tmp_path / "data", "masks", channels, last, loss)), "--untracked")[0] == 0
    (row,) = metrics(tmp_path)
    output = predictions(tmp_path)
    found = np.array(values)[output.argmax(1) if channels > 1 else (output[:, 0] >= 0.5).astype(int)].ravel()
    masks = [cv2.imread(str(tmp_path / "data" / "masks" / f"{index}.png"), cv2.IMREAD_GRAYSCALE) for index in range(6)]
    true = np.stack(masks).ravel()
    assert row["classes"] == list(values)
    options: dict[str, Any] = {"labels": values, "zero_division": np.nan}
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(true, found, **options)
    iou = sklearn.jaccard_score(true, found, labels=values, average=None, zero_division=0)
    expected = {"precision": precision, "recall": recall, "dice": f1, "iou": iou, "support": support}
    for name, figures in expected.items():
        ours = [np.nan if value is None else value for value in row[name]]
        assert ours == pytest.approx(figures.tolist(), nan_ok=True), name
    judged = f1[1:] if channels == 1 else f1[~np.isnan(f1)]
    assert row["accuracy"] == pytest.approx(judged.mean())


def test_figures_of_values_are_scikit_learns(run_file: RunFile, rml: Rml, tmp_path: Path):
    pictures(tmp_path / "data", (0, 1))
    assert rml("run", run_file(segmentation(tmp_path / "data", "images", 1, "sigmoid", "MSE")), "--untracked")[0] == 0
    (row,) = metrics(tmp_path)
    images = [cv2.imread(str(tmp_path / "data" / "images" / f"{index}.png"), 0) / 255 for index in range(6)]
    true, found = np.stack(images).ravel(), predictions(tmp_path).ravel()
    assert row["mae"] == pytest.approx(sklearn.mean_absolute_error(true, found), rel=1e-5)
    assert row["rmse"] == pytest.approx(sklearn.root_mean_squared_error(true, found), rel=1e-5)
    assert row["accuracy"] is None
    assert (tmp_path / "out_test.txt").read_text().split()[3] == "nan"
    assert row["test_loss"] == pytest.approx(sklearn.mean_squared_error(true, found), rel=1e-5)
