"""A backbone that Keras trained, frozen, below a new head: as a whole run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import torch

Rml = Callable[..., tuple[int, str, str]]


def backbone(trainable: bool) -> keras.Model:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.Conv2D(4, 3, activation="relu", name="edges"),
            layers.BatchNormalization(momentum=0.5, name="norm"),
            layers.SeparableConv2D(6, 3, padding="same", name="parts"),
        ],
        name="backbone",
    )
    model.trainable = trainable
    return model


@pytest.fixture
def trained() -> keras.Model:
    """A backbone with its old head, and weights that no initialiser gives."""
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((12, 12, 1)), *backbone(True).layers, layers.Flatten(), layers.Dense(10, name="class")]
    )
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.02, 0.3, size=weight.shape))
    return model


def saved(folder: Path, epoch: int) -> dict[str, torch.Tensor]:
    path = folder / "checkpoints" / f"model_checkpoint_{epoch}.pt"
    network: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["network"]
    return network


@pytest.mark.parametrize(
    ("name", "nested"), [("trained.h5", False), ("trained.weights.h5", True), ("trained.keras", True)]
)
def test_a_frozen_backbone_with_a_new_head(
    classification: dict[str, Any],
    run_file: Callable[..., Path],
    rml: Rml,
    trained: keras.Model,
    tmp_path: Path,
    name: str,
    nested: bool,
) -> None:
    layers = keras.layers
    (trained.save_weights if ".weights." in name else trained.save)(tmp_path / name)
    below = backbone(False)
    head = [layers.Flatten(), layers.Dense(2, activation="log_softmax", name="class")]
    model = keras.Sequential([keras.Input((12, 12, 1)), *([below] if nested else below.layers), *head])
    (tmp_path / "network.json").write_text(model.to_json())
    section = classification["neural_network"]
    section.update(layers="network.json", num_epochs=3)
    section["checkpoints"]["load"] = name
    section["optimizer"] = {"type": "SGD", "learning_rate": 0.02}
    section["data"]["transforms"] = []
    status, output, errors = rml("run", run_file(classification), "--untracked")
    assert (status, errors) == (0, "")
    assert output.splitlines()[:3] == [
        "classes left -> 0, right -> 1",
        "Skipping layer class: shape (600, 10) does not fit (600, 2)",
        "Loaded 3 of the network's 4 layers with weights, skipped 1; as they began: class",
    ]
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "out_metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3]
    first, last = saved(tmp_path, 1), saved(tmp_path, 3)
    kept = [key for key in last if not key.startswith("class.")]
    assert len(kept) == 9
    assert all(torch.equal(first[key], last[key]) for key in kept)
    assert not torch.equal(first["class.weight"], last["class.weight"])
    before = "backbone/" if nested else ""
    expected = {
        "edges.weight": trained.get_layer("edges").weights[0].value.permute(3, 2, 0, 1),
        "norm.weight": trained.get_layer("norm").gamma.value,
        "norm.running_mean": trained.get_layer("norm").moving_mean.value,
        "norm.running_var": trained.get_layer("norm").moving_variance.value,
    }
    for key, values in expected.items():
        assert torch.equal(last[before + key], values)
    losses = [float(line.split()[2]) for line in (tmp_path / "out_test.txt").read_text().splitlines()]
    assert losses[-1] < losses[0]
