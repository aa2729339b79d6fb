"""Whole runs whose targets are masks or images, against the same arithmetic by hand."""

from __future__ import annotations

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
from rml_core.config.problem import Refused
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


def test_masks_of_other_values_are_not_resumed_with(run: Run, tmp_path: Path):
    """As many samples in the same places, but another value is the second class now."""
    write_masks(tmp_path / "data", [7, 99])
    section = segmentation(tmp_path / "data", 2, "log_softmax", {"function": "NLL"})
    run(section)
    logs = (tmp_path / "run" / "out_train.txt").read_text()
    for path in (tmp_path / "data").glob("*/masks/*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(mask == 99, 98, mask))
    section["checkpoints"]["resume"] = "auto"
    with pytest.raises(Refused) as refused:
        run(section)
    assert str(refused.value) == (
        f"neural_network.checkpoints.save: {tmp_path}/run/checkpoints/model_checkpoint_2.pt was saved by a run with "
        "other settings: the values of the masks were 7, 99 and are 7, 98\n"
        "    put the settings back to resume, or run without --resume and with another folder to start anew"
    )
    assert (tmp_path / "run" / "out_train.txt").read_text() == logs


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


@pytest.mark.parametrize("seed", range(4))
def test_masks_that_are_held_out_tell_the_classes_too(run: Run, tmp_path: Path, seed: int):
    """A value that one mask alone has is a class on whichever side of the split the mask is."""
    write_masks(tmp_path, [0, 255], each=8)
    rare = tmp_path / "train" / "masks" / "5.png"
    mask = cv2.imread(str(rare), cv2.IMREAD_GRAYSCALE)
    mask[0, 0] = 128
    cv2.imwrite(str(rare), mask)
    section = segmentation(tmp_path, 3, "softmax", {"function": "Dice"})
    del section["data"]["test_input_path"], section["data"]["test_target_path"]
    section["data"]["validation_split"] = 0.5
    section["seed"] = seed
    outcome = run(section)
    assert saved(tmp_path / "run", 2)["mask_values"] == [0, 128, 255]
    support = [row["support"][1] for row in outcome.history]
    held = "5.png" in outcome.gallery.names
    assert support == [int(held)] * 2
