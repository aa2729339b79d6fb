"""Whole runs with transforms that draw: inpainting, and masks that turn and zoom with their pictures."""

from __future__ import annotations

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
from rml_core.check import check, check_without_data
from rml_core.checkpoints import native
from rml_core.config.problem import Refused
from rml_core.layers.build import build
from rml_core.run import read

Section = dict[str, Any]
Run = Callable[..., Outcome]

SIZE, NUMBER, SIDE = 16, 3, 5
TURNED = [{"random_rotate": 25}, {"random_zoom": 0.3}, {"random_horizontal_flip": 0.5}, {"normalize": {"std": 0.5}}]


def rows(path: Path) -> list[list[float]]:
    return [[float(number) for number in line.split()] for line in path.read_text().splitlines()]


def write(folder: Path, count: int, seed: int) -> np.ndarray:
    """Bright discs, none of whose pixels is black, and their masks; gives the pictures (N, H, W)."""
    random = np.random.default_rng(seed)
    pictures = []
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        cv2.circle(mask, tuple(int(v) for v in random.integers(4, 12, 2)), 4, 255, -1)
        picture = (20 + mask // 2 + random.integers(0, 40, mask.shape)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), picture)
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), mask)
        pictures.append(picture)
    return np.stack(pictures)


def layers(channels: int, activation: str) -> list[Section]:
    config = {"name": "conv", "filters": channels, "kernel_size": 3, "padding": "same", "activation": activation}
    return [{"class_name": "Conv2D", "config": config}]


@pytest.fixture
def inpainting(tmp_path: Path) -> Section:
    """Pictures alone: no target type, no target path."""
    write(tmp_path / "train", 8, 1)
    write(tmp_path / "test", 5, 2)
    return {
        "outfile": "out.txt",
        "num_epochs": 2,
        "layers": layers(1, "linear"),
        "data": {
            "input_type": "images",
            "input_path": str(tmp_path / "train" / "images"),
            "test_input_path": str(tmp_path / "test" / "images"),
            "test_output_path": "predictions",
            "grayscale": True,
            "batch_size": 8,
            "transforms": [{"random_patches": {"number": NUMBER, "size": SIDE}}],
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.01},
        "loss": {"function": "MSE"},
        "checkpoints": {"save": "checkpoints"},
    }


def outputs(weights: dict[str, torch.Tensor], inputs: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(inputs)[:, None]
    return F.conv2d(x, weights["conv.weight"], weights["conv.bias"], padding=1)


@pytest.mark.parametrize("preload", [False, True])
def test_inpainting(run: Run, inpainting: Section, tmp_path: Path, preload: bool) -> None:
    inpainting["data"]["preload"] = preload
    outcome = run(inpainting)
    folder = tmp_path / "run"
    pictures = {index: cv2.imread(str(tmp_path / "test" / "images" / f"{index}.png"), 0) for index in range(5)}
    weights = native.read(folder / "checkpoints" / "model_checkpoint_2.pt", "")["network"]
    # What the network was shown and asked for, as the gallery kept it: it shares the picture out.
    inputs, targets = (np.concatenate(side) for side in (outcome.gallery.inputs, outcome.gallery.targets))
    names = [int(Path(name).stem) for name in outcome.gallery.names]
    whole = np.stack([pictures[index] for index in names]).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(inputs + targets, whole)
    black = inputs == 0
    np.testing.assert_array_equal(targets == 0, ~black)
    assert (black.sum((1, 2)) >= SIDE**2).all()
    assert (black.sum((1, 2)) <= NUMBER * SIDE**2).all()
    # The loss is against the patches; there is no accuracy.
    predicted = outputs(weights, inputs)
    expected = F.mse_loss(predicted, torch.from_numpy(targets)[:, None]).item()
    last = rows(folder / "out_test.txt")[-1]
    assert last[2] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(last[3])
    with h5py.File(folder / "predictions" / "output_2.h5") as file:
        for place, index in enumerate(names):
            np.testing.assert_allclose(file[f"{index}.png"], predicted[place].numpy(), atol=1e-5)


def test_inpainting_learns(run: Run, inpainting: Section, tmp_path: Path) -> None:
    inpainting["num_epochs"] = 25
    outcome = run(inpainting)
    losses = [row["test_loss"] for row in outcome.history]
    assert losses[-1] < losses[0]
    # Every epoch shows other patches; an epoch of the one batch has one loss.
    assert len({row[3] for row in rows(tmp_path / "run" / "out_train.txt")}) == 25


def test_inpainting_is_resumed_with_the_same_patches(run: Run, inpainting: Section, tmp_path: Path) -> None:
    run(inpainting, "whole")
    run({**inpainting, "num_epochs": 1}, "parts")
    inpainting["checkpoints"]["resume"] = "auto"
    run(inpainting, "parts")
    # All but the times; the accuracy is nan.
    for log, columns in (("out_train.txt", [0, 1, 3, 4]), ("out_test.txt", [0, 2])):
        whole, parts = (np.array(rows(tmp_path / name / log))[:, columns] for name in ("whole", "parts"))
        np.testing.assert_array_equal(whole, parts)


def test_patches_without_a_loss_have_targets_that_nothing_is_held_against(inpainting: Section, tmp_path: Path) -> None:
    del inpainting["data"]["input_path"], inpainting["loss"], inpainting["checkpoints"]["save"]
    with pytest.raises(Refused) as refused:
        check(read({"neural_network": inpainting}, tmp_path))
    assert str(refused.value) == (
        "neural_network.loss: is missing: test targets need one\n    add a loss, or leave random_patches out"
    )


@pytest.fixture
def segmentation(tmp_path: Path) -> Section:
    write(tmp_path / "train", 8, 1)
    return {
        "outfile": "out.txt",
        "num_epochs": 2,
        "layers": layers(1, "sigmoid"),
        "data": {
            "type": "images",
            "input_path": str(tmp_path / "train" / "images"),
            "target_path": str(tmp_path / "train" / "masks"),
            "grayscale": True,
            "target_is_mask": True,
            "batch_size": 4,
            "transforms": TURNED,
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.01},
        "loss": {"function": "BCE"},
    }


def test_masks_turn_with_their_pictures_alike_whatever_the_threads(
    run: Run, segmentation: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = []
    for threads in ("1", "3"):
        for preload in (False, True):
            monkeypatch.setenv("RML_THREADS", threads)
            segmentation["data"]["preload"] = preload
            run(segmentation, f"{threads} {preload}")
            log = rows(tmp_path / f"{threads} {preload}" / "out_train.txt")
            logs.append([(epoch, batch, loss, norm) for epoch, batch, _, loss, norm in log])
    assert len(logs[0]) == 4
    assert all(log == logs[0] for log in logs)


def test_what_a_rotated_mask_does_not_have_carries_no_weight(run: Run, segmentation: Section, tmp_path: Path) -> None:
    """All of each mask is foreground, but for what the rotation has filled: that would be background."""
    for path in (tmp_path / "train" / "masks").iterdir():
        cv2.imwrite(str(path), np.full((SIZE, SIZE), 1, np.uint8))
    segmentation["data"]["transforms"] = [{"rotate": 45}]
    segmentation["data"]["batch_size"] = 8
    segmentation["num_epochs"] = 1
    run(segmentation)
    network = check(read({"neural_network": segmentation}, tmp_path)).network
    weights = {name: value.clone() for name, value in build(network, 0).state_dict().items()}
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    # Within the square that was turned by 45 degrees; none of its edges goes through a pixel's centre.
    inside = np.maximum(np.abs(x + y), np.abs(x - y)) / np.sqrt(2) < SIZE / 2
    turn = cv2.getRotationMatrix2D(((SIZE - 1) / 2, (SIZE - 1) / 2), -45, 1)
    pictures = [cv2.imread(str(tmp_path / "train" / "images" / f"{index}.png"), 0) for index in range(8)]
    turned = np.stack([cv2.warpAffine(picture, turn, (SIZE, SIZE)) for picture in pictures])
    p = outputs(weights, turned.astype(np.float32) / 255).sigmoid()[:, 0][:, torch.from_numpy(inside)]
    assert rows(tmp_path / "run" / "out_train.txt")[0][3] == pytest.approx(-p.log().mean().item(), rel=1e-4)


def test_crops_of_all_sizes_are_refused_with_the_data_and_without(segmentation: Section, tmp_path: Path) -> None:
    segmentation["data"]["transforms"] = [{"jitter_crop": 0.4}, {"random_vertical_flip": 0.5}]
    loaded = read({"neural_network": segmentation}, tmp_path)
    for checked in (check, check_without_data):
        with pytest.raises(Refused) as refused:
            checked(loaded)
        assert str(refused.value) == (
            "neural_network.data.transforms[0].jitter_crop: gives each sample a size of its own, and a batch has 4 "
            'samples\n    allowed: samples of one size\n    add {"resize": [Sx, Sy]} behind it, or set batch_size to 1'
        )
    segmentation["data"]["transforms"].append({"resize": [SIZE, SIZE]})
    for checked in (check, check_without_data):
        checked(read({"neural_network": segmentation}, tmp_path))
