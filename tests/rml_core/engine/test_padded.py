"""Batches of values with padding train and measure as their bare voxels do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rml_core.config.section import parse
from rml_core.config.target import Target
from rml_core.data.batches import Batch
from rml_core.engine.epoch import Sums, train
from rml_core.engine.evaluation import evaluate
from rml_core.engine.gallery import Gallery
from rml_core.engine.metrics import metrics_for
from rml_core.engine.precision import Precision
from rml_core.engine.step import Training
from rml_core.loss import LOSSES, Fitted
from rml_core.optimizer import OPTIMIZERS

CPU = torch.device("cpu")
SHAPE = (2, 4, 5)
MSE = parse(LOSSES["MSE"], {"function": "MSE"}, "").build(Fitted("probabilities"), SHAPE, Target("values", SHAPE))


def padded(seed: int, bare: bool) -> list[Batch]:
    """Batches of 3 samples with 3 x 2 voxels in common that are real, and what is around them; `bare`: without it."""
    rng = np.random.default_rng(seed)
    batches = []
    for first in (0, 3):
        inputs, targets = (rng.standard_normal((3, *SHAPE), dtype=np.float32) for _ in range(2))
        kept = np.zeros((3, *SHAPE[1:]), bool)
        real = (slice(1, 4), slice(2, 4))
        kept[:, *real] = True
        indices = np.arange(first, first + 3)
        if bare:
            batches.append(Batch(inputs[:, :, *real].copy(), targets[:, :, *real].copy(), indices))
        else:
            batches.append(Batch(inputs, targets, indices, kept))
    return batches


def made() -> Training:
    """Each voxel for itself: the network has no use for neighbours."""
    torch.manual_seed(0)
    network = nn.Conv2d(2, 2, 1)
    optimizer = parse(OPTIMIZERS["SGD"], {"type": "SGD", "learning_rate": 0.1}, "").build(network.parameters())
    return Training.of(network, MSE, optimizer, Precision.named("single"), CPU, None)


def trained(bare: bool) -> tuple[Training, Sums]:
    state = made()
    options: dict[str, Any] = {"elapsed": lambda: 0.0, "stop": lambda: False, "report": lambda progress: None}
    sums = train(state, iter(padded(4, bare)), epoch=1, count=2, sums=Sums(), accumulate=1, log=None, **options)
    return state, sums


def test_training() -> None:
    (state, sums), (of_bare, expected) = trained(False), trained(True)
    assert sums.loss == pytest.approx(expected.loss, rel=1e-6)
    assert sums.samples == 6
    for weight, wanted in zip(state.parameters, of_bare.parameters, strict=True):
        torch.testing.assert_close(weight, wanted, rtol=1e-6, atol=1e-7)


def test_evaluation() -> None:
    def measured(bare: bool) -> dict[str, float]:
        metric = metrics_for(SHAPE, Target("values", SHAPE), "probabilities")
        found = evaluate(
            made().network, MSE, metric, iter(padded(5, bare)), device=CPU, precision=Precision.named("single"),
            names=[str(number) for number in range(6)], output=None, gallery=Gallery(6), stop=lambda: False,
        )  # fmt: skip
        return {"loss": found.loss, "count": float(found.counts["count"]), **found.figures}

    figures, expected = measured(False), measured(True)
    assert expected["count"] == 6 * 2 * 6
    assert figures == pytest.approx(expected, rel=1e-6, nan_ok=True)
