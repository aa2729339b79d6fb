"""Training beside Keras's own `fit` (torch backend): the same network, from Keras's own JSON, data and batches.

Ours is `rml run --untracked` on preloaded images; Keras has them as arrays in memory. An epoch of each is the
shortest after the first one, in which everything warms up. Networks: a 2D U-Net, and MobileNetV2
(Sandler et al., arXiv:1801.04381) at 96 x 96.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from measure import Row, compare, main, shortest_epoch
from networks import WIDTHS
from pictures import classes, read, regions
from product import training_log

BOUND = 0.7
RATE = 0.001


@dataclass(frozen=True)
class Case:
    """One network with its data. `colour`: three channels; otherwise grey pictures with masks."""

    title: str
    network: str
    size: int
    batch: int
    samples: int
    colour: bool


UNET = Case("epoch beside Keras's fit, 2D U-Net, 8 x 128 x 128", "unet", 128, 8, 64, colour=False)
MOBILENET = Case("epoch beside Keras's fit, MobileNetV2, 16 x 96 x 96", "mobilenet_v2", 96, 16, 128, colour=True)


def arrays(case: Case, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (N, H, W, C) in [0, 1] and class indices (N,) or (N, H, W), as Keras takes them."""
    found = list(read(folder / "inputs", case.colour))
    x = np.stack([picture for _, picture in found]).astype(np.float32) / 255
    if not case.colour:
        return x[..., None], np.stack([mask for _, mask in read(folder / "masks", colour=False)]).astype(np.int64)
    kinds = sorted({path.parent.name for path, _ in found})
    return x, np.array([kinds.index(path.parent.name) for path, _ in found], np.int64)


def draw(case: Case, folder: Path, count: int) -> None:
    if case.colour:
        classes(folder / "inputs", count, case.size, ".png", colour=True)
    else:
        regions(folder / "inputs", folder / "masks", count, case.size)


def keras_network(case: Case) -> Any:
    """The network, built with Keras. It ends in logits: Keras 3.15 on torch cannot train per-pixel probabilities on
    class indices (`grad_input must be contiguous`)."""
    import keras

    if case.network == "mobilenet_v2":
        return keras.applications.MobileNetV2(
            (case.size, case.size, 3), weights=None, classes=2, classifier_activation=None
        )
    layers = keras.layers
    x = image = keras.Input((case.size, case.size, 1))
    convolution = partial(layers.Conv2D, padding="same", activation="relu")
    kept = []
    for width in WIDTHS:
        x = convolution(width, 3)(convolution(width, 3)(x))
        kept.append(x)
        x = layers.MaxPooling2D()(x)
    x = convolution(2 * WIDTHS[-1], 3)(convolution(2 * WIDTHS[-1], 3)(x))
    for width, skip in zip(reversed(WIDTHS), reversed(kept), strict=True):
        x = layers.Concatenate()([skip, layers.Conv2DTranspose(width, 2, strides=2)(x)])
        x = convolution(width, 3)(convolution(width, 3)(x))
    return keras.Model(image, layers.Conv2D(2, 1)(x))


def fit(case: Case, folder: Path, epochs: int) -> None:
    """Writes the network's JSON, trains it with Keras, and prints the seconds of each epoch as JSON."""
    import keras

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self.began)

    keras.utils.set_random_seed(0)
    model = keras_network(case)
    (folder / "network.json").write_text(model.to_json())
    model.compile(keras.optimizers.Adam(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, t = arrays(case, folder)
    clock = Clock()
    model.fit(x, t, case.batch, epochs, verbose=0, callbacks=[clock])
    print(json.dumps(clock.seconds))


def baseline(case: Case, folder: Path, epochs: int) -> float:
    command = [sys.executable, __file__, "--fit", case.network, str(folder), str(epochs)]
    finished = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": "torch"}, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise RuntimeError(finished.stderr)
    return min(json.loads(finished.stdout.splitlines()[-1])[1:])


def product(case: Case, folder: Path, epochs: int) -> float:
    data: dict[str, Any] = {"input_path": str(folder / "inputs"), "preload": True, "batch_size": case.batch}
    if case.colour:
        data |= {"input_type": "images", "target_type": "labels"}
    else:
        data |= {"type": "images", "target_path": str(folder / "masks"), "target_is_mask": True, "grayscale": True}
    run = {
        "num_epochs": epochs,
        "data": data,
        "layers": str(folder / "network.json"),
        "optimizer": {"type": "Adam", "learning_rate": RATE},
        "loss": {"function": "NLL", "source": "logits"},
    }
    return training_log(run, shortest_epoch)


def rows(rounds: int, quick: bool) -> list[Row]:
    measured = []
    for case in (UNET, MOBILENET):
        count, epochs = (case.batch, 2) if quick else (case.samples, 4)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            draw(case, folder, count)
            # Keras writes the network that ours reads.
            baseline(case, folder, 2)
            ours, theirs = partial(product, case, folder, epochs), partial(baseline, case, folder, epochs)
            measured.append(compare(case.title, ours, theirs, BOUND, rounds))
    return measured


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fit"]:
        _, _, network, where, count = sys.argv
        fit(next(case for case in (UNET, MOBILENET) if case.network == network), Path(where), int(count))
    else:
        main(rows)
