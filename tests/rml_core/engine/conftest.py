from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rml_core.engine.precision import Precision
from rml_core.engine.step import Training


def mse(output: torch.Tensor, target: torch.Tensor, kept: torch.Tensor | None = None) -> torch.Tensor:
    assert kept is None
    return F.mse_loss(output, target)


@pytest.fixture
def training() -> Callable[..., Training]:
    """A training of 3 weights and a bias with MSE against values (N, 1), from weights that are always the same."""

    def make(
        precision: str = "single",
        clip_norm: float | None = None,
        rate: float = 0.1,
        objective: Callable[..., Any] = mse,
    ) -> Training:
        network = torch.nn.Linear(3, 1)
        with torch.no_grad():
            network.weight.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
            network.bias.fill_(0.25)
        named = Precision.named(precision)
        network.to(named.dtype)
        optimizer = torch.optim.SGD(network.parameters(), lr=rate)
        return Training.of(network, objective, optimizer, named, torch.device("cpu"), clip_norm)

    return make
