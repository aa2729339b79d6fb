"""Training from a folder of JPEG files that are decoded as they are needed.

Ours is `rml run --untracked` without `preload`, the baseline torch's DataLoader with two worker processes, which
decode and resize with OpenCV as rml does; both batches of 32.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from measure import Row, after_first_epoch, compare, main
from networks import small_cnn_json, small_cnn_torch
from pictures import KINDS, classes, decoded
from product import training_seconds
from torch_loop import train

STORED, SIZE, BATCH, RATE, WORKERS, BOUND = 256, 64, 32, 0.001, 2, 0.9


class Folder(Dataset[tuple[Tensor, int]]):
    """Samples (3, SIZE, SIZE) in [0, 1] and the index of their kind."""

    def __init__(self, folder: Path):
        self.paths = sorted(folder.rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.paths[index]
        picture = cv2.resize(decoded(path, colour=True), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        sample = picture.astype(np.float32).transpose(2, 0, 1) / 255
        return torch.from_numpy(np.ascontiguousarray(sample)), KINDS.index(path.parent.name)


def baseline(folder: Path, epochs: int) -> float:
    torch.manual_seed(0)
    loader = DataLoader(Folder(folder), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    network = small_cnn_torch(SIZE, 3, len(KINDS))
    with tempfile.TemporaryDirectory() as logs:
        log = Path(logs, "log.txt")
        train(network, lambda: loader, epochs, RATE, log)
        return after_first_epoch(log)


def product(folder: Path, epochs: int) -> float:
    return training_seconds(
        {
            "num_epochs": epochs,
            "data": {
                "input_type": "images",
                "target_type": "labels",
                "input_path": str(folder),
                "batch_size": BATCH,
                "input_transforms": [{"resize": [SIZE, SIZE]}],
            },
            "layers": small_cnn_json(SIZE, 3, len(KINDS)),
            "optimizer": {"type": "Adam", "learning_rate": RATE},
            "loss": {"function": "NLL"},
        }
    )


def rows(rounds: int, quick: bool) -> list[Row]:
    count, epochs = (2 * BATCH, 2) if quick else (48 * BATCH, 4)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "images")
        classes(folder, count, STORED, ".jpg", colour=True)
        name = "train, small CNN, JPEG files, 32 x 256 x 256"
        return [compare(name, partial(product, folder, epochs), partial(baseline, folder, epochs), BOUND, rounds)]


if __name__ == "__main__":
    main(rows)
