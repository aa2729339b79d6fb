"""What training does between two log lines, against plain torch by hand, and what a resumed run takes up again:
every precision, optimizer and schedule, parts of an update, clipping, regularisers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flows.phases import Outcome
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.layers.build import build
from rml_core.run import read

Section = dict[str, Any]
RATE, MOMENTUM = 0.05, 0.9


def rows(path: Path) -> list[list[float]]:
    return [[float(number) for number in line.split()] for line in path.read_text().splitlines()]


def samples(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    names = [f"{label}/img{index}.png" for label in ("left", "right") for index in range(12)]
    arrays = [cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for name in names]
    inputs = (torch.tensor(np.stack(arrays), dtype=torch.float32)[:, None] / 255 - 0.3) / 0.5
    return inputs, torch.arange(2).repeat_interleave(12)


def network(weights: dict[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """That of `section`: Flatten of Keras runs over (H, W, C)."""
    features = F.relu(F.conv2d(inputs, weights["conv.weight"], weights["conv.bias"], padding=1))
    features = F.max_pool2d(features, 2).permute(0, 2, 3, 1).flatten(1)
    logits = F.linear(features, weights["dense.weight"], weights["dense.bias"])
    # The last activation is in single precision, as torch has it on GPUs and not on CPUs.
    return F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), 1)


def by_hand(
    weights: dict[str, torch.Tensor], pictures: Path, precision: str, accumulate: int, clip_norm: float | None
) -> list[list[float]]:
    """Two epochs of six batches of four: epoch, batch, loss, norm of the gradients gathered so far."""
    dtype = torch.float64 if precision == "double" else torch.float32
    narrow = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16")
    inputs, labels = samples(pictures / "train")
    inputs = inputs.to(dtype)
    for name in weights:
        weights[name] = weights[name].to(dtype).requires_grad_()
    parameters = list(weights.values())
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    found = []
    for epoch in (1, 2):
        for batch in range(1, 7):
            part = slice(4 * batch - 4, 4 * batch)
            last = batch % accumulate == 0 or batch == 6
            size = min(accumulate, 6 - (batch - 1) // accumulate * accumulate)
            with torch.autocast("cpu", narrow or torch.bfloat16, enabled=narrow is not None):
                output = network(weights, inputs[part])
            loss = F.nll_loss(output.to(dtype), labels[part])
            scaler.scale(loss / size).backward()
            if last:
                scaler.unscale_(optimizer)
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
            if clip_norm is not None and last:
                torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
            found.append([epoch, batch, loss.item(), norm if last else norm / scaler.get_scale()])
            if last:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("precision", "accumulate", "clip_norm", "tolerance"),
    [
        ("single", 1, 0.05, 2e-4),
        ("single", 4, None, 2e-4),
        ("double", 4, 0.05, 1e-8),
        ("bf16", 1, None, 2e-2),
        ("bf16", 4, 0.05, 2e-2),
        ("fp16", 1, 0.05, 5e-3),
        ("fp16", 4, None, 5e-3),
    ],
)
def test_two_epochs_are_those_of_plain_torch(
    run: Callable[..., Outcome],
    section: Section,
    pictures: Path,
    tmp_path: Path,
    precision: str,
    accumulate: int,
    clip_norm: float | None,
    tolerance: float,
):
    """Six batches, four of which make an update: the second update of an epoch has two. An early update of fp16
    overflows, and is left out."""
    section.update(num_epochs=2, precision=precision)
    section["optimizer"].update(type="SGD", learning_rate=RATE, momentum=MOMENTUM, accumulate=accumulate)
    section["optimizer"]["clip_norm"] = clip_norm
    run(section)
    start = check(read({"neural_network": section}, tmp_path)).network
    weights = {name: values.clone() for name, values in build(start, 0).state_dict().items()}
    expected = by_hand(weights, pictures, precision, accumulate, clip_norm)
    logged = rows(tmp_path / "run" / "out_train.txt")
    assert [row[:2] for row in logged] == [row[:2] for row in expected]
    for ours, theirs in zip(logged, expected, strict=True):
        assert math.isfinite(ours[3])
        assert ours[3] == pytest.approx(theirs[2], rel=tolerance)
        assert math.isfinite(ours[4]) == math.isfinite(theirs[3])
        if math.isfinite(ours[4]):
            assert ours[4] == pytest.approx(theirs[3], rel=2 * tolerance)
    saved = native.read(tmp_path / "run" / "checkpoints" / "model_checkpoint_2.pt", "")
    for name, values in saved["network"].items():
        assert values.dtype == (torch.float64 if precision == "double" else torch.float32)
        torch.testing.assert_close(values, weights[name].detach(), rtol=tolerance, atol=tolerance)
    if precision == "fp16" and accumulate == 1:
        assert saved["scaler"]["scale"] < 65536
        assert any(not math.isfinite(row[4]) for row in logged)


def regularised(section: Section) -> None:
    section["layers"][0]["config"]["kernel_regularizer"] = {"class_name": "L1L2", "config": {"l1": 0.01, "l2": 0.02}}
    section["layers"][0]["config"]["activity_regularizer"] = {"class_name": "L2", "config": {"l2": 0.03}}
    section["layers"][-1]["config"]["bias_regularizer"] = "l1"


def test_regularisers_are_in_every_figure_of_a_run(
    run: Callable[..., Outcome], section: Section, pictures: Path, tmp_path: Path
):
    """The losses of training and evaluation, and the gradient's norm."""
    section.update(num_epochs=1)
    section["data"]["batch_size"] = 24
    regularised(section)
    outcome = run(section)
    start = check(read({"neural_network": section}, tmp_path)).network
    weights = {name: values.clone().requires_grad_() for name, values in build(start, 0).state_dict().items()}

    def loss(inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        features = F.relu(F.conv2d(inputs, weights["conv.weight"], weights["conv.bias"], padding=1))
        kernel = weights["conv.weight"]
        weighed = 0.01 * kernel.abs().sum() + 0.02 * kernel.square().sum() + 0.01 * weights["dense.bias"].abs().sum()
        shown = 0.03 * features.square().sum() / len(inputs)
        return F.nll_loss(network(weights, inputs), labels) + weighed + shown

    expected = loss(*samples(pictures / "train"))
    expected.backward()
    norm = torch.cat([values.grad.flatten() for values in weights.values() if values.grad is not None]).norm()
    ((_, _, _, logged, logged_norm),) = rows(tmp_path / "run" / "out_train.txt")
    assert logged == pytest.approx(expected.item(), rel=1e-5)
    assert logged_norm == pytest.approx(norm.item(), rel=1e-4)
    assert outcome.history[0]["train_loss"] == pytest.approx(expected.item(), rel=1e-5)
    saved = native.read(tmp_path / "run" / "checkpoints" / "model_checkpoint_1.pt", "")["network"]
    weights = {name: values.requires_grad_() for name, values in saved.items()}
    names = [pictures / "test" / label / f"img{index}.png" for label in ("left", "right") for index in range(5)]
    arrays = np.stack([cv2.imread(str(name), cv2.IMREAD_GRAYSCALE) for name in names])
    inputs, labels = (torch.tensor(arrays)[:, None] / 255 - 0.3) / 0.5, torch.arange(2).repeat_interleave(5)
    # Batches of eight and of two, each with its samples.
    evaluated = (8 * loss(inputs[:8], labels[:8]) + 2 * loss(inputs[8:], labels[8:])) / 10
    assert rows(tmp_path / "run" / "out_test.txt")[0][2] == pytest.approx(evaluated.item(), rel=1e-5)


STEP = {"type": "Step", "gamma": 0.5, "step_size": 1, "verbose": True}
MULTI = {"type": "MultiStep", "gamma": 0.5, "milestones": [2]}
EXPONENTIAL = {"type": "Exponential", "gamma": 0.7}
WARMUP = {"type": "Warmup", "num_epochs": 2, "start_factor": 0.1}


@pytest.mark.parametrize(
    ("precision", "optimizer", "schedule", "rates"),
    [
        ("fp16", {"type": "SGD", "momentum": 0.9, "dampening": 0.1}, STEP, [1, 0.5, 0.25]),
        ("fp16", {"type": "LAMB", "amsgrad": True, "weight_decay": 0.1}, WARMUP, [0.1, 0.55, 1]),
        ("bf16", {"type": "LARS", "momentum": 0.9, "nesterov": True, "eta": 0.1}, MULTI, [1, 1, 0.5]),
        ("double", {"type": "Adam", "amsgrad": True}, EXPONENTIAL, [1, 0.7, 0.49]),
        pytest.param("double", {"type": "LAMB"}, STEP, [1, 0.5, 0.25], marks=pytest.mark.slow),
        pytest.param("fp16", {"type": "LARS", "momentum": 0.9}, MULTI, [1, 1, 0.5], marks=pytest.mark.slow),
        pytest.param("fp16", {"type": "Adagrad"}, EXPONENTIAL, [1, 0.7, 0.49], marks=pytest.mark.slow),
        pytest.param("bf16", {"type": "RMSprop", "centered": True}, WARMUP, [0.1, 0.55, 1], marks=pytest.mark.slow),
        pytest.param("single", {"type": "AdamW"}, WARMUP, [0.1, 0.55, 1], marks=pytest.mark.slow),
    ],
    ids=lambda value: value.get("type") if isinstance(value, dict) else None,
)
def test_what_was_interrupted_goes_on_bit_by_bit(
    begin: Callable[..., Outcome],
    assert_same: Callable[[Path, Path], None],
    classification: dict[str, Any],
    tmp_path: Path,
    precision: str,
    optimizer: dict[str, Any],
    schedule: dict[str, Any],
    rates: list[float],
):
    """In the middle of the second epoch, with dropout, parts of updates and regularisers."""
    section = classification["neural_network"]
    section["precision"] = precision
    regularised(section)
    section["optimizer"] = {**optimizer, "learning_rate": 0.02, "lr_scheduler": schedule, "accumulate": 4}
    section["optimizer"]["clip_norm"] = 0.5
    outcome = begin("whole")
    with pytest.raises(KeyboardInterrupt):
        begin("stopped", before="train epoch 2")
    saved = native.read(native.interrupted_path(tmp_path / "stopped" / "checkpoints"), "")
    assert (saved["epoch"], saved["batch"]) == (2, 4)
    assert saved["scheduler"] == {"learning_rate": pytest.approx(0.02 * rates[1])}
    assert bool(saved["scaler"]) is (precision == "fp16")
    begin("stopped", resuming="auto")
    assert_same(tmp_path / "stopped", tmp_path / "whole")
    assert [row["learning_rate"] for row in outcome.history] == pytest.approx([0.02 * rate for rate in rates])
    metrics = (tmp_path / "stopped" / "out_metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["learning_rate"] for line in metrics] == pytest.approx([0.02 * rate for rate in rates])


def test_a_resumed_run_says_the_changes_of_its_own_epochs(
    begin: Callable[..., Outcome], classification: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    classification["neural_network"]["optimizer"]["lr_scheduler"] = STEP
    with pytest.raises(KeyboardInterrupt):
        begin("stopped", after="train epoch 1")
    with caplog.at_level("INFO", "rml"):
        begin("stopped", resuming="auto")
    changes = [message for message in caplog.messages if "learning rate" in message]
    assert changes == ["epoch 2: learning rate 0.01 -> 0.005", "epoch 3: learning rate 0.005 -> 0.0025"]
