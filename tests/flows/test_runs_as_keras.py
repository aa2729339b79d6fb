"""Whole runs from weights that Keras saved, against Keras's own steps: losses of each batch, evaluations, outputs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import numpy as np
import pytest

from flows.phases import Outcome

Run = Callable[..., Outcome]
EPOCHS, BATCH, WEIGHTS = 3, 4, (1.0, 3.0, 0.5)
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])


def network(frozen: bool) -> keras.Model:
    """A model in a model, a layer used twice, moving statistics, and every kind of regulariser."""
    layers, regularizers = keras.layers, keras.regularizers
    inside = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, 2, "same", use_bias=False, kernel_regularizer="l2", name="edges"),
            layers.BatchNormalization(name="norm"),
        ],
        name="backbone",
    )
    inside.trainable = not frozen
    twice = layers.Conv2D(
        4,
        3,
        padding="same",
        activation="gelu",
        kernel_regularizer=regularizers.L1L2(1e-3, 1e-2),
        activity_regularizer=regularizers.L2(1e-3),
        name="twice",
    )
    image = keras.Input((8, 8, 2))
    once = twice(inside(image))
    x = layers.Concatenate(name="both")([once, twice(once)])
    x = layers.BatchNormalization(momentum=0.8, epsilon=1e-2, gamma_regularizer="l1", name="norm")(x)
    x = layers.Flatten(name="flat")(layers.SeparableConv2D(6, 3, activation="swish", name="parts")(x))
    x = layers.Dense(5, activation="elu", trainable=False, name="fixed")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", bias_regularizer="l2", name="class")(x))


OPTIMIZERS: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
    "SGD": (
        {"type": "SGD", "learning_rate": 0.05, "momentum": 0.9},
        lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    ),
    "clipped": (
        {"type": "SGD", "learning_rate": 0.05, "clip_norm": 0.3},
        lambda: keras.optimizers.SGD(0.05, global_clipnorm=0.3),
    ),
    # Keras adds its epsilon before the correction for bias, torch after it: none to speak of is the same.
    "Adam": ({"type": "Adam", "eps": 1e-10}, lambda: keras.optimizers.Adam(0.01, epsilon=1e-10)),
}


@pytest.mark.parametrize(
    ("optimizer", "frozen", "weighted", "ending"),
    [("SGD", True, False, ".weights.h5"), ("SGD", False, True, ".h5"), ("clipped", False, False, ".weights.h5"),
     ("Adam", False, False, ".keras")],
)  # fmt: skip
def test_the_steps_are_those_of_keras(
    run: Run, tmp_path: Path, optimizer: str, frozen: bool, weighted: bool, ending: str
):
    random = np.random.default_rng(3)
    images = random.normal(size=(len(LABELS), 8, 8, 2)).astype(np.float32)
    for index, (image, label) in enumerate(zip(images, LABELS, strict=True)):
        folder = tmp_path / "samples" / f"class_{label}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{index}.npy", image.transpose(2, 0, 1))
    keras.utils.set_random_seed(3)
    model = network(frozen)
    for weight in model.weights:
        weight.assign(weight.numpy() + random.uniform(0, 0.1, weight.shape))
    (tmp_path / "network.json").write_text(model.to_json())
    saving = model.save_weights if ending == ".weights.h5" else model.save
    saving(tmp_path / f"begun{ending}")
    ours, theirs = OPTIMIZERS[optimizer]
    weight = {"weight": WEIGHTS} if weighted else {}
    samples = str(tmp_path / "samples")
    run(
        {
            "outfile": "out.txt",
            "num_epochs": EPOCHS,
            "layers": str(tmp_path / "network.json"),
            "data": {
                "input_type": "numpy",
                "target_type": "labels",
                "input_path": samples,
                "test_input_path": samples,
                "test_output_path": "predictions",
                "batch_size": BATCH,
                "test_batch_size": BATCH,
                "shuffle": False,
            },
            "optimizer": ours,
            "loss": {"function": "NLL", "source": "softmax", **weight},
            "checkpoints": {"load": str(tmp_path / f"begun{ending}")},
        }
    )

    model.compile(theirs(), "sparse_categorical_crossentropy")
    parts = [slice(at, at + BATCH) for at in range(0, len(LABELS), BATCH)]

    def step(action: Callable[..., Any], part: slice) -> float:
        labels = LABELS[part]
        shares = np.take(WEIGHTS, labels)
        # Keras divides by the number of samples, rml by the sum of their weights.
        shares = shares * len(labels) / shares.sum() if weighted else None
        model.reset_metrics()
        return float(action(images[part], labels, sample_weight=shares, return_dict=True)["loss"])

    losses, evaluations = [], []
    for _ in range(EPOCHS):
        losses += [step(model.train_on_batch, part) for part in parts]
        each = [step(model.test_on_batch, part) * len(LABELS[part]) for part in parts]
        outputs = model.predict(images, verbose=0)
        evaluations.append([sum(each) / len(LABELS), (outputs.argmax(1) == LABELS).mean()])
    logs = tmp_path / "run"
    np.testing.assert_allclose(np.loadtxt(logs / "out_train.txt")[:, 3], losses, rtol=2e-5)
    np.testing.assert_allclose(np.loadtxt(logs / "out_test.txt")[:, 2:], evaluations, rtol=2e-5)
    with h5py.File(logs / "predictions" / f"output_{EPOCHS}.h5") as file:
        predicted = [file[f"class_{label}/{index}.npy"][()] for index, label in enumerate(LABELS)]
    np.testing.assert_allclose(predicted, outputs, atol=2e-5)
