"""Activations on tensors (N, C, *spatial) or (N, C)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_core.layers.section import Applied, Run


def activation(applied: Applied, ndim: int, keras_version: int, inplace: bool) -> Run | None:
    """The function for tensors of `ndim` axes, the batch included; None for `linear`.

    `inplace`: the input may be overwritten; done where the gradient can be had from the output alone.
    """
    name = applied.name
    if name == "linear":
        return None
    if name == "relu":
        return _relu(applied, inplace)
    if name == "elu" and applied.alpha != 1:
        return partial(F.elu, alpha=applied.alpha)
    if name == "leaky_relu":
        return partial(F.leaky_relu, negative_slope=applied.negative_slope, inplace=inplace)
    if name == "hard_sigmoid":
        return F.hardsigmoid if keras_version >= 3 else _hard_sigmoid_2
    if name in ("softmax", "log_softmax"):
        return _over_axes(name, applied.axis, ndim)
    if inplace and name in _INPLACE:
        return _INPLACE[name]
    return _FUNCTIONS[name]


_FUNCTIONS: dict[str, Run] = {
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "silu": F.silu,
    "mish": F.mish,
    "exponential": torch.exp,
    "hard_silu": F.hardswish,
}
_INPLACE: dict[str, Run] = {"sigmoid": torch.sigmoid_, "tanh": torch.tanh_}


def _relu(applied: Applied, inplace: bool) -> Run:
    if applied.threshold or applied.negative_slope:
        return partial(
            _general_relu,
            negative_slope=applied.negative_slope,
            max_value=applied.max_value,
            threshold=applied.threshold,
        )
    if applied.max_value is None:
        return torch.relu_ if inplace else torch.relu
    return partial(F.hardtanh, min_val=0.0, max_val=applied.max_value, inplace=inplace)


def _general_relu(x: Tensor, negative_slope: float, max_value: float | None, threshold: float) -> Tensor:
    """f(x) = max_value for x >= max_value, x for threshold <= x, else negative_slope * (x - threshold)."""
    y = torch.where(x > threshold, x, 0) if threshold else torch.relu(x)
    if max_value is not None:
        y = y.clamp(0, max_value)
    if negative_slope:
        y = y - negative_slope * torch.relu(threshold - x)
    return y


def _hard_sigmoid_2(x: Tensor) -> Tensor:
    return torch.clamp(0.2 * x + 0.5, 0, 1)


def _over_axes(name: str, axis: int | tuple[int, ...], ndim: int) -> Run:
    axes = axis if isinstance(axis, tuple) else (axis,)
    # Keras's last axis is torch's second.
    dims = tuple(1 if place % ndim == ndim - 1 else place % ndim + 1 for place in axes)
    if len(dims) > 1:
        return partial(_log_softmax_over if name == "log_softmax" else _softmax_over, dims=dims)
    return partial(torch.log_softmax if name == "log_softmax" else torch.softmax, dim=dims[0])


def _log_softmax_over(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return x - torch.logsumexp(x, dims, keepdim=True)


def _softmax_over(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return torch.exp(_log_softmax_over(x, dims))


class PReLU(nn.Module):
    """x: (N, C, *spatial); alpha: the same without N, 1 along the axes that share it."""

    alpha: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("alpha", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.alpha.numel() == self.alpha.shape[0]:
            return F.prelu(x, self.alpha.reshape(-1))
        return torch.relu(x) - self.alpha * torch.relu(-x)
