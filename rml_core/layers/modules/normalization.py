"""Normalisation of tensors (N, C, *spatial) or (N, C)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_core.layers.modules.scaling import by_channel


class BatchNorm(nn.Module):
    """`update`: the weight of the new value in the moving statistics. `unbiased`: the moving variance's estimate.

    `frozen`: the moving statistics are used and kept in training too. `dim`: the axis of the tensor that keeps its
    own statistics.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, update: float, epsilon: float, unbiased: bool, frozen: bool, dim: int):
        super().__init__()
        self.dim = dim
        self.channels, self.update, self.epsilon = channels, update, epsilon
        self.unbiased, self.frozen = unbiased, frozen
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self.register_buffer("running_mean", torch.empty(channels, device="meta"))
        self.register_buffer("running_var", torch.empty(channels, device="meta"))

    def forward(self, x: Tensor, training: bool | None = None) -> Tensor:
        """`training`: the mode; None: the module's own."""
        if self.frozen or training is None:
            training = self.training and not self.frozen
        if self.dim == 1:
            return self._normalized(x, training)
        return self._normalized(x.transpose(1, self.dim), training).transpose(1, self.dim)

    def _normalized(self, x: Tensor, training: bool) -> Tensor:
        mean, variance, update = self.running_mean, self.running_var, self.update
        if not training:
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


class LayerNorm(nn.Module):
    """Over `dims` of a tensor of 1 + `axes` axes. weight, bias: the sizes of `dims`."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, dims: tuple[int, ...], axes: int, epsilon: float):
        super().__init__()
        self.dims, self.epsilon = dims, epsilon
        self.whole, self.channels = len(dims) == axes, dims == (1,)
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            return F.layer_norm(x, x.shape[1:], self.weight, self.bias, self.epsilon)
        if self.channels:
            # No copy where the memory is channels-last.
            y = F.layer_norm(x.movedim(1, -1), (x.shape[1],), self.weight, self.bias, self.epsilon)
            return y.movedim(-1, 1)
        variance, mean = torch.var_mean(x, self.dims, correction=0, keepdim=True)
        y = (x - mean) * torch.rsqrt(variance + self.epsilon)
        shape = [size if axis in self.dims else 1 for axis, size in enumerate(x.shape)]
        y = y if self.weight is None else y * self.weight.reshape(shape)
        return y if self.bias is None else y + self.bias.reshape(shape)


class GroupNorm(nn.Module):
    """Over each sample's groups of channels. weight, bias: (C)."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, groups: int, epsilon: float):
        super().__init__()
        self.groups, self.epsilon = groups, epsilon
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)

    def forward(self, x: Tensor) -> Tensor:
        # Not torch.nn.functional's, which refuses groups of one number: those become beta.
        if self.weight is None and self.bias is not None:
            # torch has no gradient for a bias alone.
            return torch.group_norm(x, self.groups, None, None, self.epsilon) + by_channel(self.bias, x)
        return torch.group_norm(x, self.groups, self.weight, self.bias, self.epsilon)


class InstanceNorm(nn.Module):
    """Over each sample's places. weight, bias, running_mean, running_var: (C), None where there is none.

    `update`: the weight of the new value in the moving statistics. `frozen`: they are used and kept in training too.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None

    def __init__(self, update: float, epsilon: float, frozen: bool):
        super().__init__()
        self.update, self.epsilon, self.frozen = update, epsilon, frozen
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self.register_buffer("running_mean", None)
        self.register_buffer("running_var", None)

    def forward(self, x: Tensor, training: bool | None = None) -> Tensor:
        """`training`: the mode; None: the module's own."""
        if self.frozen or training is None:
            training = self.training and not self.frozen
        mean, variance = self.running_mean, self.running_var
        own = training or mean is None
        return F.instance_norm(x, mean, variance, self.weight, self.bias, own, self.update, self.epsilon)
