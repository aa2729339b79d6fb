"""Convolutions whose padding torch's own modules do not have."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from rml_core.layers.padding import Pair, Sizes, extent, same_each
from rml_core.layers.section import Run

# By rank.
_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONVOLVE_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def flat(pairs: tuple[Pair, ...]) -> list[int]:
    """Pairs an axis in the order that `torch.nn.functional.pad` wants: the last axis first."""
    return [side for pair in reversed(pairs) for side in pair]


class SameConvolution(nn.Module):
    """A convolution with TensorFlow's `same` padding, which depends on the input's size when it strides.

    x: (N, in, *spatial) -> (N, filters, *ceil(spatial / strides)).
    """

    def __init__(self, plain: nn.Conv1d, reach: Sizes):
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        self.reach, self.stride, self.dilation, self.groups = reach, plain.stride, plain.dilation, plain.groups
        self._convolve = _CONVOLVE[len(reach)]

    def forward(self, x: Tensor) -> Tensor:
        pads = same_each(tuple(x.shape[2:]), self.reach, self.stride)
        if all(before == after for before, after in pads):
            around = tuple(before for before, _ in pads)
        else:
            x, around = F.pad(x, flat(pads)), (0,) * len(pads)
        return self._convolve(x, self.weight, self.bias, self.stride, around, self.dilation, self.groups)


def convolution(
    inputs: int,
    filters: int,
    kernel_size: Sizes,
    strides: Sizes,
    padding: str | Sizes,
    dilation: Sizes,
    groups: int,
    bias: bool,
) -> Run:
    reach = tuple(map(extent, kernel_size, dilation))
    make = _CONVOLUTIONS[len(kernel_size)]
    fixed = max(strides) == 1 and all(size % 2 for size in reach)
    around: Sizes = tuple(size // 2 if padding == "same" else 0 for size in reach)
    if not isinstance(padding, str):
        around = padding
    plain = make(inputs, filters, kernel_size, strides, around, dilation, groups, bias, device="meta")
    return SameConvolution(plain, reach) if padding == "same" and not fixed else plain


class CroppedTransposed(nn.Module):
    """A transposed convolution that cuts more off the end than off the beginning.

    x: (N, in, *spatial) -> (N, filters, *spatial').
    """

    def __init__(self, plain: nn.ConvTranspose1d, surplus: Sizes):
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        self.stride, self.padding, self.dilation = plain.stride, plain.padding, plain.dilation
        self.output_padding, self.surplus = plain.output_padding, surplus
        self._convolve = _CONVOLVE_TRANSPOSED[len(surplus)]

    def forward(self, x: Tensor) -> Tensor:
        y = self._convolve(x, self.weight, self.bias, self.stride, self.padding, self.output_padding, 1, self.dilation)
        for axis, surplus in enumerate(self.surplus, start=2):
            if surplus:
                y = y.narrow(axis, 0, y.shape[axis] - surplus)
        return y


def transposed(
    inputs: int,
    filters: int,
    kernel_size: Sizes,
    strides: Sizes,
    crops: tuple[Pair, ...],
    dilation: Sizes,
    bias: bool,
) -> Run:
    """`crops`: what an axis loses at its beginning and end; torch has one number for both, and a growth at the end."""
    around = tuple(before for before, _ in crops)
    growth = tuple(max(before - after, 0) for before, after in crops)
    surplus = tuple(max(after - before, 0) for before, after in crops)
    make = _TRANSPOSED[len(kernel_size)]
    plain = make(inputs, filters, kernel_size, strides, around, growth, 1, bias, dilation, device="meta")
    return CroppedTransposed(plain, surplus) if any(surplus) else plain
