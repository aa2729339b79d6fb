"""Whole runs with each loss of masks: the loss in the log is that of monai, kornia or torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rml_core.check import check
from rml_core.layers.build import build
from rml_core.run import read

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]
COUNT, SIZE = 4, 8


@pytest.fixture
def segmentation(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A run file of grey pictures and masks with the given values; three channels of kernels 1 x 1."""

    def made(values: list[int], channels: int, activation: str, loss: dict[str, Any]) -> dict[str, Any]:
        random = np.random.default_rng(3)
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir()
        for index in range(COUNT):
            classes = random.integers(0, len(values), (SIZE, SIZE))
            picture = 60 * classes + random.integers(0, 60, classes.shape)
            cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), picture.astype(np.uint8))
            cv2.imwrite(str(tmp_path / "masks" / f"{index}.png"), np.array(values, np.uint8)[classes])
        layer = {"filters": channels, "kernel_size": 1, "activation": activation, "name": "conv"}
        return {
            "neural_network": {
                "outfile": "out.txt",
                "num_epochs": 1,
                "layers": [{"class_name": "Conv2D", "config": layer}],
                "data": {
                    "type": "images",
                    "input_path": "images",
                    "target_path": "masks",
                    "grayscale": True,
                    "target_is_mask": True,
                },
                "optimizer": {"type": "SGD", "learning_rate": 0.1},
                "loss": loss,
            }
        }

    return made


def monai(name: str, **keys: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(x: Tensor, t: Tensor) -> Tensor:
        from monai import losses

        several = x.shape[1] > 1
        return getattr(losses, name)(sigmoid=not several, softmax=several, to_onehot_y=several, batch=True, **keys)(
            x, t.unsqueeze(1)
        )

    return loss


def kornia(name: str, **keys: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(x: Tensor, t: Tensor) -> Tensor:
        from kornia import losses

        return getattr(losses, name)(x, t, **keys)

    return loss


def one_image(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A batch as one tall image."""
    return lambda x, t: loss(x.transpose(0, 1).reshape(1, x.shape[1], -1, SIZE), t.reshape(1, -1, SIZE))


def kornia_focal(x: Tensor, t: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return kornia("binary_focal_loss_with_logits", alpha=0.25, reduction="mean")(x, t.unsqueeze(1).float())
    each = kornia("focal_loss", alpha=0.25, gamma=2.0, reduction="none", ignore_index=-1)(x, t)
    return each.sum() / (t != -1).sum()


def squares(x: Tensor, t: Tensor) -> Tensor:
    expected = F.one_hot(t.clamp(min=0), 3).movedim(-1, 1)
    weight = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1) * (t != -1).unsqueeze(1)
    return (weight * (x - expected) ** 2).sum() / weight.sum()


JACCARD = monai("DiceLoss", jaccard=True, smooth_nr=2e-6, smooth_dr=2e-6)
# The masks' values, the outputs and their activation, `loss`, and the same of logits and class indices.
CASES: dict[str, tuple[list[int], int, str, dict[str, Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "Jaccard, one": ([0, 255], 1, "sigmoid", {"function": "Jaccard"}, JACCARD),
    "Jaccard, several": ([0, 1, 2], 3, "softmax", {"function": "jaccard"}, JACCARD),
    "Focal, one": ([0, 255], 1, "sigmoid", {"function": "Focal", "alpha": 0.25}, kornia_focal),
    "Focal, several": (
        [0, 1, 2, 255],
        3,
        "log_softmax",
        {"function": "Focal", "alpha": 0.25, "ignore_index": 255},
        kornia_focal,
    ),
    "Lovasz, one": ([0, 255], 1, "linear", {"function": "Lovasz"}, one_image(kornia("lovasz_hinge_loss"))),
    "Lovasz, of a sigmoid": (
        [0, 255],
        1,
        "sigmoid",
        {"function": "Lovasz", "source": "sigmoid"},
        one_image(kornia("lovasz_hinge_loss")),
    ),
    "Lovasz, several": ([1, 2, 3], 3, "linear", {"function": "Lovasz"}, one_image(kornia("lovasz_softmax_loss"))),
    "Lovasz, of each image": (
        [1, 2, 3],
        3,
        "softmax",
        {"function": "Lovasz", "per_image": True},
        kornia("lovasz_softmax_loss"),
    ),
    "MSE": ([0, 1, 2, 255], 3, "linear", {"function": "MSE", "weight": [1, 2, 3], "ignore_index": 255}, squares),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_loss_in_the_log(
    rml: Rml, run_file: RunFile, tmp_path: Path, segmentation: Callable[..., dict[str, Any]], name: str
):
    values, channels, activation, loss, independent = CASES[name]
    content = segmentation(values, channels, activation, loss)
    file = run_file(content)
    status, _, errors = rml("run", file, "--untracked")
    assert (status, errors) == (0, "")
    network = build(check(read(content, tmp_path)).network, 0)
    weights = network.state_dict()
    images, masks = (
        np.stack([cv2.imread(str(tmp_path / kind / f"{index}.png"), cv2.IMREAD_GRAYSCALE) for index in range(COUNT)])
        for kind in ("images", "masks")
    )
    logits = F.conv2d(torch.tensor(images / 255).float()[:, None], weights["conv.weight"], weights["conv.bias"])
    known = [value for value in values if value != loss.get("ignore_index")]
    classes = torch.full(masks.shape, -1)
    for index, value in enumerate(known):
        classes[torch.tensor(masks == value)] = index
    first = float((tmp_path / "out_train.txt").read_text().splitlines()[0].split()[3])
    assert first == pytest.approx(independent(logits, classes).item(), rel=1e-5)


def test_validate_says_what_of_a_loss_does_not_fit(
    rml: Rml, run_file: RunFile, segmentation: Callable[..., dict[str, Any]]
):
    content = segmentation([0, 1, 2], 3, "tanh", {"function": "Focal", "alpha": [1, 2], "weight": [1]})
    file = run_file(content)
    assert rml("validate", file) == (
        2,
        "",
        f"{file}: 3 problems\n\n"
        "neural_network.loss.weight: has 1 number, the network's output (3, 8, 8) needs 3\n"
        "    allowed: one number a class\n"
        "neural_network.loss.alpha: has 2 numbers, the network's output (3, 8, 8) needs 3\n"
        "    allowed: one number a class\n"
        "neural_network.loss: Focal takes probabilities or logits, and the network ends in tanh\n"
        '    end the network with sigmoid or softmax, or say with "source" what it gives\n',
    )
