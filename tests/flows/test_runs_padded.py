"""However a volume is cut, padded and filled up: one batch of all its slices has the loss, the gradient and the figures
of its voxels, each once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Rml = Callable[..., tuple[int, str, str]]

SPACE = (12, 10, 8)
CUTS: list[list[dict[str, Any]]] = [
    [{"sizes": [12, 10, 8]}],
    [{"sizes": [6, 5, 4], "padding": 2}],
    [{"sizes": [5, 4, 3], "padded_sizes": [6, 6, 6], "padding_mode": "edge"}],
    [{"sizes": [7, 16, 8], "padding": [1, 0, 3], "padding_mode": "context"}],
    [{"sizes": [1, 7, 8], "padding": 3, "padding_mode": "reflect", "transpose": True}],
    [{"sizes": [5, 1, 9]}],
    [{"sizes": [1, 1, 5], "padding": 1}],
]
LOSSES: list[tuple[dict[str, Any], bool, str]] = [
    ({"function": "MSE"}, False, "linear"),
    ({"function": "Dice"}, False, "sigmoid"),
    ({"function": "NLL"}, True, "log_softmax"),
    ({"function": "Lovasz"}, True, "softmax"),
]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    np.save(folder / "input.npy", rng.standard_normal((2, *SPACE), dtype=np.float32))
    np.save(folder / "values.npy", rng.random((2, *SPACE), dtype=np.float32))
    np.save(folder / "mask.npy", rng.integers(0, 2, SPACE, dtype=np.uint8))
    return folder


def figures(
    folder: Path, rml: Rml, cuts: list[dict[str, Any]], loss: dict[str, Any], mask: bool, end: str
) -> dict[str, float]:
    rank = sum(size > 1 for size in cuts[0]["sizes"])
    target = str(folder / ("mask.npy" if mask else "values.npy"))
    section: dict[str, Any] = {
        "outfile": "out.txt",
        "data": {
            "type": "numpy",
            **{f"{part}input_path": str(folder / "input.npy") for part in ("", "test_")},
            **{f"{part}target_path": target for part in ("", "test_")},
            "target_is_mask": mask,
            "batch_size": 500,
            "test_batch_size": 500,
            "slicers": cuts,
        },
        # Kernels of 1 voxel have as many numbers for each rank, and the same ones.
        "layers": [
            {
                "class_name": f"Conv{rank}D",
                "config": {"filters": 2, "kernel_size": 1, "activation": "tanh", "name": "a"},
            },
            {"class_name": f"Conv{rank}D", "config": {"filters": 2, "kernel_size": 1, "activation": end, "name": "b"}},
        ],
        "optimizer": {"type": "SGD", "learning_rate": 0.1},
        "loss": loss,
    }
    path = folder / "run.json"
    path.write_text(json.dumps({"neural_network": section}))
    status, output, errors = rml("run", path, "--untracked")
    assert status == 0, output + errors
    (train,) = (line.split() for line in (folder / "out_train.txt").open())
    (metrics,) = (json.loads(line) for line in (folder / "out_metrics.jsonl").open())
    names = ("test_loss", "dice", "iou", "support") if mask else ("test_loss", "mae", "rmse")
    return {"loss": float(train[3]), "norm": float(train[4]), **{name: metrics[name] for name in names}}


@pytest.mark.parametrize(
    ("loss", "mask", "end"), LOSSES, ids=lambda case: case["function"] if isinstance(case, dict) else ""
)
def test_any_cut_gives_the_same_figures(volumes: Path, rml: Rml, loss: dict[str, Any], mask: bool, end: str) -> None:
    whole, *others = (figures(volumes, rml, cuts, loss, mask, end) for cuts in CUTS)
    for cuts, found in zip(CUTS[1:], others, strict=True):
        for name, figure in whole.items():
            assert found[name] == pytest.approx(figure, rel=2e-6), (name, cuts)
