"""Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) of tensors (N, C, *spatial) or (N, C)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """`update`: the weight of the new value in the moving statistics. `unbiased`: the moving variance's estimate.

    `frozen`: the moving statistics are used and kept in training too.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, update: float, epsilon: float, unbiased: bool, frozen: bool):
        super().__init__()
        self.channels, self.update, self.epsilon = channels, update, epsilon
        self.unbiased, self.frozen = unbiased, frozen
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self.register_buffer("running_mean", torch.empty(channels, device="meta"))
        self.register_buffer("running_var", torch.empty(channels, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance, update = self.running_mean, self.running_var, self.update
        if not self.training or self.frozen:
            return F.batch_norm(x, mean, variance, self.weight, self.bias, False, 0.0, self.epsilon)
        count = x.numel() // self.channels
        if count == 1:
            return self._single(x)
        if self.unbiased:
            return F.batch_norm(x, mean, variance, self.weight, self.bias, True, update, self.epsilon)
        # torch folds in the variance times count / (count - 1): scaled there and back, that factor drops out.
        bessel = count / (count - 1)
        scaled = variance * bessel
        y = F.batch_norm(x, mean, scaled, self.weight, self.bias, True, update, self.epsilon)
        variance.copy_(scaled / bessel)
        return y

    def _single(self, x: Tensor) -> Tensor:
        """One element a channel, which torch refuses: it is its own mean, and its variance is 0."""
        with torch.no_grad():
            self.running_mean.lerp_(x.detach().reshape(-1).to(self.running_mean.dtype), self.update)
            self.running_var.mul_(1 - self.update)
        y = x * 0 if self.weight is None else x * 0 * self.weight.reshape(1, -1, *[1] * (x.dim() - 2))
        return y if self.bias is None else y + self.bias.reshape(1, -1, *[1] * (x.dim() - 2))

    def extra_repr(self) -> str:
        return f"{self.channels}, update={self.update}, epsilon={self.epsilon}, frozen={self.frozen}"
