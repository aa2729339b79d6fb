"""The sizes of windows over an axis, and TensorFlow's `same` padding: its only home.

Source: TensorFlow, "Notes on padding" of `tf.nn`; Dumoulin and Visin, arXiv:1603.07285 (transposed convolution).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

Sizes = tuple[int, ...]
Pair = tuple[int, int]


def extent(kernel: int, dilation: int = 1) -> int:
    """How far a window reaches: a kernel of 3 with dilation 2 covers 5 elements."""
    return (kernel - 1) * dilation + 1


def same(length: int, reach: int, stride: int, largest: Callable[[int, int], int] = max) -> Pair:
    """What `same` adds before and after an axis so that ceil(length / stride) windows of `reach` fit."""
    # In terms that stay simple where the length is a symbol, and hold in ONNX, which divides towards 0.
    total = reach - stride + (stride - length % stride) % stride
    total = total if reach >= stride else largest(total, 0)
    return total // 2, total - total // 2


@lru_cache(maxsize=4096)
def same_each(lengths: Sizes, reaches: Sizes, strides: Sizes) -> tuple[Pair, ...]:
    """`same` for each axis."""
    return tuple(map(same, lengths, reaches, strides))


def windows(length: int | None, reach: int, stride: int, padding: int | str) -> int | None:
    """How many windows there are along an axis: below 1 where not even one fits."""
    if length is None:
        return None
    if padding in ("same", "causal"):
        return -(-length // stride)
    around = 0 if padding == "valid" else 2 * int(padding)
    return (length + around - reach) // stride + 1


def transposed_crop(reach: int, stride: int, padding: int | str, output_padding: int | None) -> Pair:
    """What a transposed convolution cuts off the (length - 1) * stride + reach elements that it makes.

    A negative number after: zeros (and the bias) are appended. `output_padding` None is Keras's default: `same`
    then gives length * stride, `valid` (length - 1) * stride + max(reach, stride).
    """
    if padding == "same":
        total = reach - stride if output_padding is None else reach - reach % 2 - output_padding
        before = max(total // 2, 0)
        return before, total - before
    if padding == "valid":
        return 0, -(max(stride - reach, 0) if output_padding is None else output_padding)
    return int(padding), int(padding) - (output_padding or 0)


def transposed(
    length: int | None, reach: int, stride: int, padding: int | str, output_padding: int | None
) -> int | None:
    """The length of a transposed convolution's output."""
    if length is None:
        return None
    return (length - 1) * stride + reach - sum(transposed_crop(reach, stride, padding, output_padding))
