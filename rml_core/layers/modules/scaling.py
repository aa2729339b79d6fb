"""Multiplying and adding numbers a channel, of tensors (N, C, *spatial)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def by_channel(numbers: Tensor, x: Tensor) -> Tensor:
    """numbers: (C) or (1) -> (C, 1, ...), which broadcasts with x: (N, C, *spatial)."""
    return numbers.reshape(-1, *[1] * (x.dim() - 2))


class Affine(nn.Module):
    """x * scale + offset, which are no weights and keep all their digits."""

    scale: Tensor
    offset: Tensor

    def __init__(self, scale: tuple[float, ...], offset: tuple[float, ...]):
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64), persistent=False)
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * by_channel(self.scale.to(x.dtype), x) + by_channel(self.offset.to(x.dtype), x)


class Standardised(nn.Module):
    """(x - mean) / sqrt(variance). mean, variance: (C) or (); `count`, how many they were taken over, is not used."""

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, least: float):
        super().__init__()
        self.least = least
        for name in ("mean", "variance", "count"):
            self.register_buffer(name, None)

    def forward(self, x: Tensor) -> Tensor:
        deviation = self.variance.sqrt().clamp(min=self.least)
        return (x - by_channel(self.mean, x)) / by_channel(deviation, x)


class LayerScale(nn.Module):
    """weight: (C)."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("weight", None)

    def forward(self, x: Tensor) -> Tensor:
        return x * by_channel(self.weight, x)
