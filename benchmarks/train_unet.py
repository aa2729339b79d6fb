"""Training of a 2D U-Net on preloaded images and masks, where the arithmetic counts most.

Ours is `rml run --untracked`, the baseline the plain torch loop over tensors in memory; both batches of 8.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from measure import Row, after_first_epoch, compare, main
from networks import UNet, unet_json
from pictures import read, regions
from product import training_seconds
from torch_loop import in_memory, train

SIZE, BATCH, RATE, BOUND = 128, 8, 0.001, 0.85


def baseline(inputs: Path, masks: Path, epochs: int) -> float:
    pictures = np.stack([picture for _, picture in read(inputs, colour=False)])
    x = torch.from_numpy(pictures[:, None].astype(np.float32) / 255)
    t = torch.from_numpy(np.stack([mask for _, mask in read(masks, colour=False)]).astype(np.int64))
    torch.manual_seed(0)
    network = UNet()
    with tempfile.TemporaryDirectory() as logs:
        log = Path(logs, "log.txt")
        train(network, in_memory(x, t, BATCH), epochs, RATE, log)
        return after_first_epoch(log)


def product(inputs: Path, masks: Path, epochs: int) -> float:
    return training_seconds(
        {
            "num_epochs": epochs,
            "data": {
                "type": "images",
                "input_path": str(inputs),
                "target_path": str(masks),
                "target_is_mask": True,
                "grayscale": True,
                "preload": True,
                "batch_size": BATCH,
            },
            "layers": unet_json(SIZE),
            "optimizer": {"type": "Adam", "learning_rate": RATE},
            "loss": {"function": "NLL"},
        }
    )


def rows(rounds: int, quick: bool) -> list[Row]:
    count, epochs = (BATCH, 2) if quick else (8 * BATCH, 4)
    with tempfile.TemporaryDirectory() as temporary:
        inputs, masks = Path(temporary, "images"), Path(temporary, "masks")
        regions(inputs, masks, count, SIZE)
        ours, theirs = partial(product, inputs, masks, epochs), partial(baseline, inputs, masks, epochs)
        return [compare("train, 2D U-Net, preloaded, 8 x 128 x 128", ours, theirs, BOUND, rounds)]


if __name__ == "__main__":
    main(rows)
