"""Pooling of tensors (N, C, *spatial)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rml_core.layers.modules.convolution import flat, open_same, sizes_known
from rml_core.layers.padding import Sizes, same_each
from rml_core.layers.section import Run


def _max_1d(x: Tensor, kernel_size: Sizes, stride: Sizes, padding: Sizes = (0,), ceil_mode: bool = False) -> Tensor:
    if sizes_known(x):
        return torch.max_pool1d(x, kernel_size, stride, padding, 1, ceil_mode)
    # torch.export would take the size of the example for the only one there is.
    y = x.unsqueeze(2)
    return torch.max_pool2d(y, (1, *kernel_size), (1, *stride), (0, *padding), 1, ceil_mode).squeeze(2)


# Not torch.nn.functional's: those cannot be pickled.
_MAX: dict[int, Run] = {1: _max_1d, 2: torch.max_pool2d, 3: torch.max_pool3d}
_AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pooling(pool: Sizes, strides: Sizes, padding: str | Sizes) -> Run:
    plain = partial(_MAX[len(pool)], kernel_size=pool, stride=strides)
    return _padded(plain, partial(plain, ceil_mode=True), pool, strides, padding, largest=True)


def average_pooling(pool: Sizes, strides: Sizes, padding: str | Sizes) -> Run:
    """With `same` the elements that padding adds are not counted, as TensorFlow does; explicit zeros are."""
    plain = partial(_AVERAGE[len(pool)], kernel_size=pool, stride=strides)
    ceiling = partial(plain, ceil_mode=True, count_include_pad=False)
    if len(pool) != 3 or set(strides) != {1}:
        return _padded(plain, ceiling, pool, strides, padding, largest=False)
    if padding == "same":
        return partial(mean_by_axes, plain=SamePooling(ceiling, plain, pool, strides, False), pool=pool, same=True)
    return _padded(partial(mean_by_axes, plain=plain, pool=pool), ceiling, pool, strides, padding, largest=False)


def mean_by_axes(x: Tensor, plain: Run, pool: Sizes, same: bool = False) -> Tensor:
    """`plain`, an average pooling of (N, C, D, H, W) that does not stride, as sums along one axis after the other.

    For 3 x 3 x 3 that is 6 additions a voxel in place of 26, and whole rows at once: on CPUs, where torch adds up each
    window by itself, a tenth of the time.
    """
    if x.device.type != "cpu" or x.dtype not in _EXACT or not sizes_known(x) or torch.compiler.is_compiling():
        return plain(x)
    lengths = [length if same else length - size + 1 for length, size in zip(x.shape[2:], pool, strict=True)]
    first, second, third = (_shares(length, size, same, x.dtype) for length, size in zip(lengths, pool, strict=True))
    shares = first[:, None, None] * (second[:, None] * third)
    if torch.is_grad_enabled() or x[0].numel() < NEAR:
        return _sums(x, pool, same) * shares
    # One after the other they stay near the processor.
    means = x.new_empty((*x.shape[:2], *lengths))
    for sample, mean in zip(x, means, strict=True):
        torch.mul(_sums(sample[None], pool, same)[0], shares, out=mean)
    return means


# So many numbers are near it anyway.
NEAR = 1 << 16
_EXACT = (torch.float32, torch.float64)


def _sums(x: Tensor, pool: Sizes, same: bool) -> Tensor:
    for axis, size in enumerate(pool, start=2):
        x = _same_sums(x, axis, size) if same else _valid_sums(x, axis, size)
    return x


def _valid_sums(x: Tensor, axis: int, size: int) -> Tensor:
    """The sums of `size` neighbours along `axis`."""
    length = x.shape[axis] - size + 1
    sums = x.narrow(axis, 0, length)
    for offset in range(1, size):
        sums = sums + x.narrow(axis, offset, length) if offset == 1 else sums.add_(x.narrow(axis, offset, length))
    return sums


def _same_sums(x: Tensor, axis: int, size: int) -> Tensor:
    """The sums of those of `size` neighbours that there are, one for each element."""
    before, length = (size - 1) // 2, x.shape[axis]
    sums = x.clone(memory_format=torch.contiguous_format)
    for offset in range(max(-before, 1 - length), min(size - before, length)):
        if offset:
            there = length - abs(offset)
            sums.narrow(axis, max(-offset, 0), there).add_(x.narrow(axis, max(offset, 0), there))
    return sums


def _shares(length: int, size: int, same: bool, dtype: torch.dtype) -> Tensor:
    """One over how many elements each sum has."""
    if not same:
        return torch.full((length,), 1 / size, dtype=dtype)
    at = torch.arange(length)
    before = (size - 1) // 2
    there = (at + size - before).clamp(max=length) - (at - before).clamp(min=0)
    return 1 / there.to(dtype)


def _padded(plain: Run, ceiling: Run, pool: Sizes, strides: Sizes, padding: str | Sizes, largest: bool) -> Run:
    if padding == "same":
        return SamePooling(ceiling, plain, pool, strides, largest)
    if isinstance(padding, tuple) and any(padding):
        return partial(_with_zeros, pool=plain, around=flat(tuple((size, size) for size in padding)))
    return plain


def _with_zeros(x: Tensor, pool: Run, around: list[int]) -> Tensor:
    return pool(F.pad(x, around))


class SamePooling(nn.Module):
    """`same` without a copy: windows that reach beyond the end are what torch calls ceiling mode.

    Where an axis does not stride and its window is even, the one window too many at the beginning is left out.
    """

    def __init__(self, ceiling: Run, plain: Run, pool: Sizes, strides: Sizes, largest: bool):
        super().__init__()
        self.ceiling, self.plain, self.pool, self.strides, self.largest = ceiling, plain, pool, strides, largest
        self.first = tuple(int(stride == 1 and size % 2 == 0) for size, stride in zip(pool, strides, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        if not sizes_known(x):
            return self._open(x)
        pads = same_each(tuple(x.shape[2:]), self.pool, self.strides)
        y = self.ceiling(x, padding=tuple(pad[0] + more for pad, more in zip(pads, self.first, strict=True)))
        for axis, first in enumerate(self.first, start=2):
            if first:
                y = y.narrow(axis, 1, y.shape[axis] - 1)
        return y

    def _open(self, x: Tensor) -> Tensor:
        """With sizes that are left open, and a copy."""
        if self.largest:
            return self.plain(open_same(x, self.pool, self.strides, -torch.inf))
        counted = open_same(torch.ones_like(x[:1, :1]), self.pool, self.strides)
        return self.plain(open_same(x, self.pool, self.strides)) / self.plain(counted)


def global_max(rank: int, keepdims: bool) -> Run:
    return partial(torch.amax, dim=tuple(range(2, rank + 2)), keepdim=keepdims)


def global_average(rank: int, keepdims: bool) -> Run:
    return partial(torch.mean, dim=tuple(range(2, rank + 2)), keepdim=keepdims)
