"""Convolutions whose padding torch's own modules do not have."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_core.layers.padding import Pair, Sizes, extent, same, same_each
from rml_core.layers.section import Run

# By rank.
_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONVOLVE_TRANSPOSED: dict[int, Any] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def flat(pairs: tuple[Pair, ...]) -> list[int]:
    """Pairs an axis in the order that `torch.nn.functional.pad` wants: the last axis first."""
    return [side for pair in reversed(pairs) for side in pair]


def sizes_known(x: Tensor) -> bool:
    """Whether the sizes of x: (N, C, *spatial) are numbers. torch.export has symbols for those that it leaves open, of
    which nothing may be asked."""
    return not any(isinstance(size, torch.SymInt) for size in x.shape[2:])


def open_same(x: Tensor, reach: Sizes, strides: Sizes, value: float = 0.0) -> Tensor:
    """x with what `same` adds, for sizes that are left open."""
    lengths = x.shape[2:]
    x = F.pad(x, flat(tuple(map(partial(same, largest=torch.sym_max), lengths, reach, strides))), value=value)
    for axis, (length, size, stride) in enumerate(zip(lengths, reach, strides, strict=True), start=2):
        # All that the windows see, in terms that stay simple from layer to layer.
        x = x.narrow(axis, 0, ((length + stride - 1) // stride - 1) * stride + size)
    return x


def padded(x: Tensor, padding: str | Sizes, reach: Sizes, strides: Sizes) -> tuple[Tensor, Sizes]:
    """x: (N, C, *spatial) with the zeros that a convolution cannot add itself, and those that it can, an axis."""
    if not isinstance(padding, str):
        return x, padding
    if padding == "valid":
        return x, (0,) * len(reach)
    if padding == "causal":
        return F.pad(x, flat(tuple((size - 1, 0) for size in reach))), (0,) * len(reach)
    if not sizes_known(x):
        return open_same(x, reach, strides), (0,) * len(reach)
    pads = same_each(tuple(x.shape[2:]), reach, strides)
    if all(before == after for before, after in pads):
        return x, tuple(before for before, _ in pads)
    return F.pad(x, flat(pads)), (0,) * len(pads)


class PaddedConvolution(nn.Module):
    """A convolution with padding that is not symmetric, as TensorFlow's `same` when it strides.

    x: (N, in, *spatial) -> (N, filters, *ceil(spatial / strides)).
    """

    def __init__(self, plain: nn.Conv1d, padding: str, reach: Sizes):
        super().__init__()
        self.weight, self.bias = plain.weight, plain.bias
        self.padding, self.reach = padding, reach
        self.stride, self.dilation, self.groups = plain.stride, plain.dilation, plain.groups
        self._convolve = CONVOLVE[len(reach)]

    def forward(self, x: Tensor) -> Tensor:
        x, around = padded(x, self.padding, self.reach, self.stride)
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
    padding = constant(padding, reach, strides)
    around = (0,) * len(reach) if isinstance(padding, str) else padding
    plain = make(inputs, filters, kernel_size, strides, around, dilation, groups, bias, device="meta")
    return PaddedConvolution(plain, padding, reach) if isinstance(padding, str) else plain


def constant(padding: str | Sizes, reach: Sizes, strides: Sizes) -> str | Sizes:
    """The padding as numbers, where they are the same on both sides and for every input."""
    if padding == "valid":
        return (0,) * len(reach)
    if padding == "same" and max(strides) == 1 and all(size % 2 for size in reach):
        return tuple(size // 2 for size in reach)
    return padding


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
