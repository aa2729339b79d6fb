"""Reshaping of tensors (N, C, *spatial) in Keras's order of elements, where the channels come last."""

from __future__ import annotations

from functools import partial

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


def upsampling(size: Sizes, mode: str) -> Run:
    """Bilinear: at half-pixel centres, as Keras resizes images."""
    factors = tuple(map(float, size))
    if mode == "nearest":
        return partial(F.interpolate, scale_factor=factors, mode="nearest")
    return partial(F.interpolate, scale_factor=factors, mode=mode, align_corners=False)


def zero_padding(pairs: tuple[Pair, ...]) -> Run:
    return partial(F.pad, pad=flat(pairs))
