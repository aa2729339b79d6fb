from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from rml_core.config.section import parse
from rml_core.optimizer import OPTIMIZERS

Weights = list[torch.nn.Parameter]
# One of them begins at 0, as biases do, and one has no gradient at its second step.
SHAPES = [(7, 5), (19,), (3, 2, 2), (4,), (1,)]
STEPS = 20


def gradients(step: int) -> list[np.ndarray]:
    rng = np.random.default_rng(100 + step)
    drawn = [rng.standard_normal(shape) for shape in SHAPES]
    return [*drawn[:4], drawn[4] * (step % 3 != 1)]


def start() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape) * (place != 3) for place, shape in enumerate(SHAPES)]


@pytest.fixture
def weights() -> Callable[[torch.dtype], Weights]:
    return lambda dtype: [torch.nn.Parameter(torch.tensor(values, dtype=dtype)) for values in start()]


@pytest.fixture
def build() -> Callable[..., torch.optim.Optimizer]:
    return lambda parameters, **keys: parse(OPTIMIZERS[keys["type"]], keys, "optimizer").build(parameters)


@pytest.fixture
def train() -> Callable[..., None]:
    """Steps with the gradients of `by_hand`; the learning rate of each may change."""

    def run(
        optimizer: torch.optim.Optimizer,
        parameters: Weights,
        steps: Iterable[int] = range(STEPS),
        rate: Callable[[int], float] | None = None,
    ) -> None:
        for step in steps:
            for parameter, values in zip(parameters, gradients(step), strict=True):
                parameter.grad = torch.tensor(values, dtype=parameter.dtype)
            if rate is not None:
                optimizer.param_groups[0]["lr"] = rate(step)
            optimizer.step()

    return run


@pytest.fixture
def by_hand() -> Callable[..., list[np.ndarray]]:
    """The weights after all steps of a rule(w, g, state, number of the step, learning rate, ...) in NumPy."""

    def run(rule: Callable[..., Any], rate: Callable[[int], float], **options: Any) -> list[np.ndarray]:
        found, states = start(), [dict[str, Any]() for _ in SHAPES]
        for step in range(STEPS):
            for place, values in enumerate(gradients(step)):
                found[place] = rule(found[place], values, states[place], step + 1, rate(step), **options)
        return found

    return run


@pytest.fixture
def copied() -> Callable[[torch.optim.Optimizer], Any]:
    """The optimizer's state as a file gives it back."""

    def through_a_file(optimizer: torch.optim.Optimizer) -> Any:
        torch.save(optimizer.state_dict(), file := io.BytesIO())
        file.seek(0)
        return torch.load(file, weights_only=True)

    return through_a_file
