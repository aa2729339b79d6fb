"""A small module, and what its network would say of its layers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from torch import nn

# Keras's name and axes for torch's names of weights.
NAMES = {"weight": "kernel", "bias": "bias", "running_mean": "moving_mean", "running_var": "moving_variance"}
AXES = {2: (1, 0), 3: (2, 1, 0), 4: (3, 2, 0, 1)}


@dataclass(frozen=True)
class Slot:
    name: str
    attribute: str
    shape: tuple[int, ...]
    learned: bool = True
    axes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Layer:
    name: str
    key: str
    class_name: str
    weights: tuple[Slot, ...]


def slot(attribute, value):
    axes = AXES.get(value.ndim)
    back = sorted(range(value.ndim), key=axes.__getitem__) if axes else range(value.ndim)
    return Slot(NAMES[attribute], attribute, tuple(value.shape[axis] for axis in back), axes=axes)


@pytest.fixture
def layers_of():
    """module -> its layers, as a network would tell them."""

    def tell(module):
        return [
            Layer(
                name,
                name.replace(".", "/"),
                type(part).__name__.replace("1d", "1D"),
                tuple(slot(key, value) for key, value in part.state_dict().items() if key in NAMES),
            )
            for name, part in module.named_modules()
            if not list(part.children())
        ]

    return tell


@pytest.fixture
def network():
    """Zeros everywhere."""
    module = nn.ModuleDict({"conv": nn.Conv2d(1, 2, 3), "norm": nn.BatchNorm2d(2), "dense/a": nn.Linear(4, 10)})
    for parameter in module.state_dict().values():
        parameter.zero_()
    return module
