"""Dense on tensors (N, C) or, over the channels of each place, (N, C, *spatial)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from rml_core.layers.section import Run


class ChannelsDense(nn.Linear):
    """x: (N, in, *spatial) -> (N, out, *spatial)."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (nn.Linear's own name)
        return F.linear(input.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


def dense(inputs: int, units: int, bias: bool, axes: int) -> Run:
    """`axes`: how many the sample has."""
    return (nn.Linear if axes == 1 else ChannelsDense)(inputs, units, bias, device="meta")
