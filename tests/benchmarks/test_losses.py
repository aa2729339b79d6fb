"""Both sides of the benchmark of losses compute the same."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch


@pytest.fixture
def losses() -> Any:
    return importlib.import_module("losses")


@pytest.mark.parametrize("name", ["Dice, monai", "Focal, monai", "Focal, kornia", "Lovasz, kornia"])
def test_both_sides_give_the_same_numbers(losses: Any, name: str) -> None:
    x, t = losses.batch(6)
    found = []
    for product in (True, False):
        x.grad = None
        loss = losses.side(name, product, 6)(x, t)
        loss.backward()
        found.append((loss.detach(), x.grad))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-7)
