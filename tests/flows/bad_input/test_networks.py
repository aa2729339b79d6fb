"""Networks and losses that do not fit, and numbers that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Rml = Callable[..., tuple[int, str, str]]

CLASSES = "classes left -> 0, right -> 1\n"


def unfinished(folder: Path) -> list[str]:
    """Hidden files: what was not finished has such a name. (The note of a folder's latest run is whole.)"""
    return [path.name for path in folder.rglob(".*") if path.name != ".latest_run.json"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"activation": "linear"},
            "NLL takes log-probabilities, and the network ends in linear\n"
            '    end the network with log_softmax, or say "source": "logits"',
        ),
        (
            {"units": 1},
            "NLL takes an output for each class: the network's output (1,) has one, against the targets, one class "
            "of 2 a sample\n"
            "    end the network with 2 outputs and log_softmax, or use BCE",
        ),
    ],
)
def test_a_network_that_does_not_fit_the_loss(own: dict[str, Any], refuses: Any, change: dict[str, Any], problem: str):
    own["layers"][-1]["config"] |= change
    refuses(own, f"neural_network.loss: {problem}")


def test_a_network_that_does_not_fit_labels(own: dict[str, Any], refuses: Any):
    del own["layers"][3]
    refuses(
        own,
        "neural_network.loss: NLL cannot compare the network's output (2, 6, 6) with the targets, one class of 2 a "
        "sample\n"
        "    end the network with Flatten or a global pooling, and a Dense layer",
    )


def test_a_network_that_does_not_fit_masks(masks: dict[str, Any], refuses: Any):
    masks["layers"][0]["config"]["strides"] = 2
    refuses(
        masks,
        "neural_network.loss: Dice cannot compare the network's output (1, 6, 6) with the targets, one class a pixel "
        "of (12, 12)\n"
        "    let the last layer's height, width and so on be (12, 12)",
    )


def test_a_network_that_does_not_fit_values(masks: dict[str, Any], refuses: Any):
    masks["data"]["target_is_mask"] = False
    masks["loss"] = {"function": "MSE"}
    masks["layers"][0]["config"]["filters"] = 2
    refuses(
        masks,
        "neural_network.loss: MSE cannot compare the network's output (2, 12, 12) with the targets (1, 12, 12)\n"
        "    make the last layer give (1, 12, 12)",
    )


@pytest.mark.parametrize(
    ("loss", "end", "gamma", "became"),
    [("NLL", "log_softmax", 1e40, "nan"), ("MSE", "linear", 1e30, "inf")],
    ids=["nan", "inf"],
)
def test_a_loss_that_is_not_finite(
    own: dict[str, Any], run: Rml, loss: str, end: str, gamma: float, became: str, tmp_path: Path
):
    own |= {"num_epochs": 3, "loss": {"function": loss}}
    own["layers"] = own["layers"][3:]
    own["layers"][-1]["config"]["activation"] = end
    # Epoch 1 is harmless, the first update of epoch 2 is not.
    schedule = {"type": "MultiStep", "gamma": gamma, "milestones": [1]}
    own["optimizer"] = {"type": "SGD", "learning_rate": 1e-2, "lr_scheduler": schedule}
    status, output, errors = run(own)
    assert (status, errors) == (
        1,
        f"train epoch 2: the loss became {became} in epoch 2, batch 2: lower optimizer.learning_rate, set "
        "optimizer.clip_norm, or look for broken samples; earlier checkpoints are kept\n",
    )
    assert output.startswith(f"{CLASSES}epoch 1/3  loss ")
    assert len(output.splitlines()) == 2
    last = (tmp_path / "out_train.txt").read_text().splitlines()[-1].split()
    assert (last[:2], last[3]) == (["2", "2"], became)
    assert len((tmp_path / "out_test.txt").read_text().splitlines()) == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt")) == ["model_checkpoint_1.pt"]
    assert torch.load(tmp_path / "checkpoints" / "model_checkpoint_1.pt", weights_only=True)["epoch"] == 1
    assert unfinished(tmp_path) == []


def test_weights_that_are_not_finite_are_not_saved(own: dict[str, Any], run: Rml, tmp_path: Path):
    """The only batch of epoch 2 has a finite loss, and ruins the weights: a resumed run must not start from them."""
    own |= {"num_epochs": 2, "loss": {"function": "MSE"}}
    own["data"]["batch_size"] = 24
    own["layers"][-1]["config"]["activation"] = "linear"
    schedule = {"type": "MultiStep", "gamma": 1e44, "milestones": [1]}
    own["optimizer"] = {"type": "SGD", "learning_rate": 1e-2, "momentum": 0.9, "lr_scheduler": schedule}
    own["checkpoints"]["keep"] = 1
    status, _, errors = run(own)
    assert (status, errors) == (
        1,
        "checkpoint epoch 2: the weights became nan or infinite in epoch 2: lower optimizer.learning_rate, or set "
        "optimizer.clip_norm; earlier checkpoints are kept\n",
    )
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt")) == ["model_checkpoint_1.pt"]
    assert len((tmp_path / "out_test.txt").read_text().splitlines()) == 1
