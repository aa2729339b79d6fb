"""Convolutions of each channel by itself (depthwise), and of all channels after it (separable)."""

from __future__ import annotations

from torch import Tensor, nn

from rml_core.layers.modules.convolution import CONVOLVE, constant, padded
from rml_core.layers.padding import Sizes, extent


class Depthwise(nn.Module):
    """x: (N, in, *spatial) -> (N, in * multiplier, *spatial').

    weight: (in, multiplier, *kernel), bias: (in * multiplier).
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, kernel_size: Sizes, strides: Sizes, padding: str | Sizes, dilation: Sizes):
        super().__init__()
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self.reach = tuple(map(extent, kernel_size, dilation))
        self.stride, self.dilation = strides, dilation
        self.padding = constant(padding, self.reach, strides)
        self._convolve = CONVOLVE[len(kernel_size)]

    def forward(self, x: Tensor) -> Tensor:
        x, around = padded(x, self.padding, self.reach, self.stride)
        weight = self.weight.flatten(0, 1).unsqueeze(1)
        return self._convolve(x, weight, self.bias, self.stride, around, self.dilation, self.weight.shape[0])


class Separable(nn.Module):
    """A depthwise convolution, then one of kernel size 1. x: (N, in, *spatial) -> (N, filters, *spatial').

    depthwise: (in, multiplier, *kernel), pointwise: (filters, in * multiplier, 1, ...), bias: (filters).
    """

    depthwise: Tensor
    pointwise: Tensor
    bias: Tensor | None

    def __init__(self, kernel_size: Sizes, strides: Sizes, padding: str | Sizes, dilation: Sizes):
        super().__init__()
        for name in ("depthwise", "pointwise", "bias"):
            self.register_parameter(name, None)
        self.reach = tuple(map(extent, kernel_size, dilation))
        self.stride, self.dilation = strides, dilation
        self.padding = constant(padding, self.reach, strides)
        self._convolve = CONVOLVE[len(kernel_size)]

    def forward(self, x: Tensor) -> Tensor:
        x, around = padded(x, self.padding, self.reach, self.stride)
        weight = self.depthwise.flatten(0, 1).unsqueeze(1)
        y = self._convolve(x, weight, None, self.stride, around, self.dilation, self.depthwise.shape[0])
        return self._convolve(y, self.pointwise, self.bias)
