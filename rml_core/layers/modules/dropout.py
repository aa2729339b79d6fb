"""Dropout of tensors (N, C, *spatial) from torch's own generator, which the engine seeds."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Of elements, each by itself."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, training: bool | None = None) -> Tensor:
        """`training`: the mode; None: the module's own."""
        return F.dropout(x, self.rate, self.training if training is None else training)


class DropoutTogether(nn.Module):
    """Of all elements along some axes together; `together` has an entry for each axis, the batch included."""

    def __init__(self, rate: float, together: tuple[bool, ...]):
        super().__init__()
        self.rate, self.together = rate, together

    def forward(self, x: Tensor, training: bool | None = None) -> Tensor:
        """`training`: the mode; None: the module's own."""
        if not (self.training if training is None else training):
            return x
        shape = [1 if one else size for one, size in zip(self.together, x.shape, strict=True)]
        return x * F.dropout(x.new_ones(shape), self.rate)
