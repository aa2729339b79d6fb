"""The runs of the campaign of kills: what they are made of, and what they have to leave."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

EPOCHS, BATCHES = 5, 40
TIMES = {"samples_per_s", "test_samples_per_s", "train_seconds", "time_s", "memory_mb"}


def section(data: Path, folder: Path, volume: bool) -> dict[str, Any]:
    """A run file's content: classification with all that is random, or a volume whose prediction is assembled."""
    common = {
        "outfile": str(folder / "out.txt"),
        "num_epochs": EPOCHS,
        "seed": 3,
        "device": "cpu",
        "optimizer": {"type": "Adam", "learning_rate": 0.001, "lr_scheduler": {"type": "Exponential", "gamma": 0.9}},
        "checkpoints": {"save": str(folder / "checkpoints"), "best": True},
    }
    if volume:
        files = {
            f"{role}{side}_path": str(data / "volume.npy") for role in ("", "test_") for side in ("input", "target")
        }
        conv = {"kernel_size": 3, "padding": "same"}
        return {
            **common,
            "loss": {"function": "MSE"},
            "layers": [
                {"class_name": "Conv3D", "config": {"filters": 4, "activation": "relu", **conv}},
                {"class_name": "SpatialDropout3D", "config": {"rate": 0.2}},
                {"class_name": "Conv3D", "config": {"filters": 1, **conv}},
            ],
            "data": {
                **files,
                "type": "numpy",
                "batch_size": 2,
                "slicers": [{"name": "bricks", "sizes": [8, 8, 8], "strides": [6, 6, 6]}],
                "hdf5_outfile": str(folder / "prediction.h5"),
            },
        }
    return {
        **common,
        "loss": {"function": "NLL"},
        "layers": [
            {"class_name": "Conv2D", "config": {"filters": 24, "kernel_size": 3, "activation": "relu"}},
            {"class_name": "BatchNormalization", "config": {}},
            {"class_name": "Dropout", "config": {"rate": 0.3}},
            {"class_name": "Conv2D", "config": {"filters": 24, "kernel_size": 5, "activation": "relu"}},
            {"class_name": "GlobalAveragePooling2D", "config": {}},
            {"class_name": "Dense", "config": {"units": 2, "activation": "log_softmax"}},
        ],
        "data": {
            "input_type": "images",
            "target_type": "labels",
            "input_path": str(data / "train"),
            "test_input_path": str(data / "test"),
            "test_output_path": str(folder / "predictions"),
            "batch_size": 4,
            "grayscale": True,
            "preload": True,
            "transforms": [{"random_horizontal_flip": 0.5}, {"normalize": {"mean": 0.3, "std": 0.5}}],
        },
    }


def make_data(folder: Path) -> Path:
    import cv2

    for role, each in (("train", 2 * BATCHES), ("test", 20)):
        generator = np.random.default_rng(each)
        for label, column in (("left", 2), ("right", 22)):
            (folder / role / label).mkdir(parents=True)
            for index in range(each):
                picture = generator.integers(0, 120, (40, 40), dtype=np.uint8)
                picture[8:20, column : column + 12] = 200
                cv2.imwrite(str(folder / role / label / f"img{index}.png"), picture)
    np.save(folder / "volume.npy", np.random.default_rng(1).random((1, 26, 26, 26), dtype=np.float32))
    return folder


@dataclass
class Run:
    """A run that is disturbed. `redone`: batches that were trained again; `lost`: seconds over the undisturbed run."""

    id: str
    folder: Path
    volume: bool
    kind: str
    began: float
    acted: float = 0.0
    position: tuple[int, int] = (0, 0)
    saved: int = 0
    retries: int = 0
    redone: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def at(self) -> tuple[int, int]:
        """(epoch, batch) of the last whole line of its log."""
        log = self.folder / "out_train.txt"
        with suppress(FileNotFoundError):
            lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if lines:
                epoch, batch, *_ = lines[-1].split()
                return int(epoch), int(batch)
        return 0, 0

    def newest(self) -> int:
        names = [path.stem.rpartition("_")[2] for path in self.folder.glob("checkpoints/model_checkpoint_*.pt")]
        return max((int(name) for name in names if name.isdecimal()), default=0)


def differences(run: Run, other: Run) -> list[str]:
    """What a run has left otherwise than the undisturbed `other`."""
    wrong = []
    names = [sorted(str(path.relative_to(each.folder)) for path in each.folder.rglob("*")) for each in (run, other)]
    if names[0] != names[1]:
        wrong.append(f"files: {sorted(set(names[0]) ^ set(names[1]))}")
    for name in ("checkpoints/model_checkpoint_5.pt", "checkpoints/model_checkpoint_best.pt"):
        ours, theirs = (torch.load(each.folder / name, weights_only=True) for each in (run, other))
        # Where generators stand at the end of an epoch is of no account: the next one begins them anew.
        for key in ("network", "optimizer", "scheduler", "epoch", "batch"):
            if not same(ours[key], theirs[key]):
                wrong.append(f"{name}: {key} differs")
    for name, time_column in (("out_train.txt", 2), ("out_test.txt", 1)):
        rows = [
            [
                (*words[:time_column], *words[time_column + 1 :])
                for words in map(str.split, (each.folder / name).read_text().splitlines())
            ]
            for each in (run, other)
        ]
        if rows[0] != rows[1]:
            wrong.append(f"{name}: {len(rows[0])} lines, {sum(a != b for a, b in zip(*rows, strict=False))} differ")
    metrics = [
        [
            {key: value for key, value in json.loads(line).items() if key not in TIMES}
            for line in (each.folder / "out_metrics.jsonl").open()
        ]
        for each in (run, other)
    ]
    if metrics[0] != metrics[1]:
        wrong.append("out_metrics.jsonl differs")
    for path in other.folder.rglob("*.h5"):
        if not same_hdf5(path, run.folder / path.relative_to(other.folder)):
            wrong.append(f"{path.name} differs")
    return wrong


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def same_hdf5(one: Path, other: Path) -> bool:
    import h5py

    def content(path: Path) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.update({name: item[()].tobytes()}) if hasattr(item, "shape") else None
            )
        return found

    return other.exists() and content(one) == content(other)
