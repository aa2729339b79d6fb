"""Training of a small network on preloaded images, where what is done around each batch counts most.

Ours is `rml run --untracked`, the baseline the plain torch loop over tensors in memory; both batches of 16.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from measure import Row, after_first_epoch, compare, main
from networks import small_cnn_json, small_cnn_torch
from pictures import KINDS, classes, read
from product import training_seconds
from torch_loop import in_memory, train

SIZE, BATCH, RATE, BOUND = 28, 16, 0.001, 1.05


def baseline(folder: Path, epochs: int) -> float:
    pictures = list(read(folder, colour=False))
    x = torch.from_numpy(np.stack([picture for _, picture in pictures])[:, None].astype(np.float32) / 255)
    t = torch.tensor([KINDS.index(path.parent.name) for path, _ in pictures])
    torch.manual_seed(0)
    network = small_cnn_torch(SIZE, 1, len(KINDS))
    with tempfile.TemporaryDirectory() as logs:
        log = Path(logs, "log.txt")
        train(network, in_memory(x, t, BATCH), epochs, RATE, log)
        return after_first_epoch(log)


def product(folder: Path, epochs: int) -> float:
    return training_seconds(
        {
            "num_epochs": epochs,
            "data": {
                "input_type": "images",
                "target_type": "labels",
                "input_path": str(folder),
                "grayscale": True,
                "preload": True,
                "batch_size": BATCH,
            },
            "layers": small_cnn_json(SIZE, 1, len(KINDS)),
            "optimizer": {"type": "Adam", "learning_rate": RATE},
            "loss": {"function": "NLL"},
        }
    )


def rows(rounds: int, quick: bool) -> list[Row]:
    count, epochs = (4 * BATCH, 2) if quick else (128 * BATCH, 9)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "images")
        classes(folder, count, SIZE, ".png", colour=False)
        name = "train, small CNN, preloaded, 16 x 28 x 28"
        return [compare(name, partial(product, folder, epochs), partial(baseline, folder, epochs), BOUND, rounds)]


if __name__ == "__main__":
    main(rows)
