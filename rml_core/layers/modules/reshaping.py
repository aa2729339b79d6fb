"""Reshaping of tensors (N, C, *spatial) in Keras's order of elements, where the channels come last."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rml_core.layers.modules.convolution import flat
from rml_core.layers.padding import Pair, Sizes
from rml_core.layers.section import Run


def flatten(x: Tensor) -> Tensor:
    """A view where the memory is channels-last, or where there is only one place or one channel."""
    return x.movedim(1, -1).flatten(1)


def reshape(axes: int, target: Sizes) -> Run:
    """`axes`: how many the sample has."""
    return partial(_reshaped, last=axes > 1, target=target)


def _reshaped(x: Tensor, last: bool, target: Sizes) -> Tensor:
    y = (x.movedim(1, -1) if last else x).reshape(x.shape[0], *target)
    return y.movedim(-1, 1) if len(target) > 1 else y


def permute(order: Sizes) -> Run:
    """`order`: which axis each one is, channels last, counted from 1."""
    # Keras's axes are 1 ... n with the channels last; torch's are the channels, 1, then 2 ... n.
    count = len(order)
    first = (order[-1], *order[:-1])
    return partial(torch.permute, dims=(0, *(1 if axis == count else axis + 1 for axis in first)))


def upsampling(size: Sizes, mode: str) -> Run:
    """At half-pixel centres, as Keras resizes images."""
    factors = tuple(map(float, size))
    if mode in ("nearest", "area"):
        return partial(F.interpolate, scale_factor=factors, mode="nearest")
    if mode == "bilinear":
        return partial(F.interpolate, scale_factor=factors, mode=mode, align_corners=False)
    return partial(_resampled, factors=size, mode=mode)


def _resampled(x: Tensor, factors: Sizes, mode: str) -> Tensor:
    """x: (N, C, H, W). Along each axis every new element is a weighted sum of the old ones near it."""
    rows, columns = (_weights(n, by, mode).to(x) for n, by in zip(x.shape[2:], factors, strict=True))
    return rows @ x @ columns.T


@lru_cache(maxsize=64)
def _weights(length: int, factor: int, mode: str) -> Tensor:
    """(length * factor, length): TensorFlow's resize without antialiasing; weights beyond the border are left out."""
    kernel, radius = _KERNELS[mode]
    centres = (torch.arange(length * factor, dtype=torch.float64) + 0.5) / factor - 0.5
    if mode == "bicubic":
        # TensorFlow has the kernel in a table of 1024 steps an element.
        centres = (centres * 1024).round() / 1024
    distance = (centres[:, None] - torch.arange(length, dtype=torch.float64)).abs()
    weights = torch.where(distance < radius, kernel(distance), 0.0)
    return weights / weights.sum(1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys's kernel with a = -1/2 (IEEE Transactions on Acoustics, Speech, and Signal Processing 29(6), 1981)."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far)


def _lanczos(x: Tensor, radius: int) -> Tensor:
    return torch.sinc(x) * torch.sinc(x / radius)


_KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "bicubic": (_cubic, 2),
    "lanczos3": (partial(_lanczos, radius=3), 3),
    "lanczos5": (partial(_lanczos, radius=5), 5),
}


def zero_padding(pairs: tuple[Pair, ...]) -> Run:
    return partial(F.pad, pad=flat(pairs))


def cropping(pairs: tuple[Pair, ...]) -> Run:
    return partial(_cropped, pairs=pairs)


def _cropped(x: Tensor, pairs: tuple[Pair, ...]) -> Tensor:
    for axis, (before, after) in enumerate(pairs, start=2):
        x = x.narrow(axis, before, x.shape[axis] - before - after)
    return x
