"""What losses compute with: class-index targets as channels, outputs as (log-)probabilities, class weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rml_core.loss.pieces import seen_ignored

HALF = (torch.float16, torch.bfloat16)


class Constant:
    """A few numbers on the device and in the type of a tensor; copied there once, not once a batch."""

    def __init__(self, values: Sequence[float]):
        self._values = tuple(values)
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        place = (tensor.device, tensor.dtype)
        if place not in self._copies:
            # The first call may come from an evaluation; autograd refuses what was made in inference mode.
            with torch.inference_mode(False):
                self._copies[place] = torch.tensor(self._values, device=tensor.device, dtype=tensor.dtype)
        return self._copies[place]

    def channels(self, tensor: Tensor) -> Tensor:
        """As (1, C, 1, ...), to go with a tensor (N, C, ...)."""
        return self.like(tensor).view(1, -1, *[1] * (tensor.ndim - 2))


class ClassTable:
    """A number a class, for each sample or pixel of its class index; 0 for `ignored` and IGNORED."""

    def __init__(self, numbers: Sequence[float], ignored: int | None):
        # As an index IGNORED is the last.
        self._table = Constant([*(0.0 if c == ignored else number for c, number in enumerate(numbers)), 0.0])

    def of(self, target: Tensor, like: Tensor) -> Tensor:
        return self._table.like(like)[target]


class ElementMean:
    """The weighted mean over the elements of (N, C, *spatial), divided by the sum of the weights.

    `weight`: a number a channel; for one channel of class indices a number for either class. `ignored`: the class
    index of samples or pixels that weigh nothing.
    """

    def __init__(self, weight: Sequence[float] | None, ignored: int | None, channels: int, values: bool):
        self._ignored, self._channels, self._values = ignored, channels, values
        self._plain = weight is None and ignored is None
        self._weights = Constant(weight or [1.0] * channels)
        self._of_two = ClassTable(weight or (1.0, 1.0), ignored)

    def __call__(self, each: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor:
        """each (N, C, *spatial); target (N, *spatial) class indices, or values like `each`; kept (N, *spatial): where
        values count."""
        if self._plain and kept is None:
            return each.mean()
        if self._channels == 1 and not self._values:
            weight = self._of_two.of(target, each).unsqueeze(1)
            return share((each * weight).sum(), weight.sum())
        weight = self._weights.channels(each)
        pixels: Tensor | int = each.numel() // self._channels
        if self._ignored is not None:
            kept = target != self._ignored
        if kept is not None:
            weight, pixels = weight * kept.unsqueeze(1), kept.sum()
        return share((each * weight).sum(), self._weights.like(each).sum() * pixels)


# What stands where nothing counts: every loss and its derivatives are finite there.
_HARMLESS = {"logits": 0.0, "log_softmax": -0.7}


def counting(
    output: Tensor, target: Tensor, source: str, kept: Tensor | None = None, ignored: int | None = None
) -> tuple[Tensor, Tensor]:
    """Output and target with finite numbers where they do not count, so that what weighs nothing is 0 and not nan.

    `kept` (N, *spatial): where values count; None: class indices count where they are not `ignored`.
    """
    harmless = _HARMLESS.get(source, 0.5)
    if kept is not None:
        there = kept.unsqueeze(1)
        return torch.where(there, output, harmless), torch.where(there, target, harmless)
    ignored = seen_ignored(target, ignored)
    if ignored is not None:
        output = torch.where(torch.ne(target, ignored).unsqueeze(1), output, harmless)
    return output, target


def one_hot(target: Tensor, channels: int) -> Tensor:
    """Class indices (N, *spatial) as bool (N, channels, *spatial); one channel is the second of two classes."""
    first = 1 if channels == 1 else 0
    classes = torch.arange(first, first + channels, device=target.device)
    return target.unsqueeze(1) == classes.view(1, channels, *[1] * (target.ndim - 1))


def most_probable(output: Tensor) -> Tensor:
    """The channel of the largest number: (N, C, ...) to (N, ...). torch is ten times slower over an inner axis."""
    return output.movedim(1, -1).contiguous().argmax(-1)


def widened(output: Tensor) -> Tensor:
    """Half precision as float32; everything else as it is."""
    return output.float() if output.dtype in HALF else output


def probabilities(output: Tensor, source: str) -> Tensor:
    """What the network says as probabilities (N, C, ...); logits go through sigmoid (one channel) or softmax."""
    if source == "logits":
        wide = widened(output)
        return wide.sigmoid() if output.shape[1] == 1 else wide.softmax(1)
    if source == "log_softmax":
        return widened(output).exp()
    return widened(output)


def log_of(probability: Tensor) -> Tensor:
    """The log, finite at 0. The floor is the narrow type's own: the gradient 1/p has to fit in it on the way back."""
    return widened(probability.clamp(min=torch.finfo(probability.dtype).tiny)).log()


def within(probability: Tensor) -> Tensor:
    """Probabilities a little off 0 and 1, where the type has no room for the gradient of a log; widened."""
    limits = torch.finfo(probability.dtype)
    return widened(probability.clamp(limits.tiny, 1 - limits.eps))


def share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole, and 0 where nothing was counted."""
    return part / whole.clamp(min=torch.finfo(part.dtype).tiny)


def cross_entropy(p: Tensor, t: Tensor) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), element by element."""
    each: Tensor = _CrossEntropy.apply(p, t)  # type: ignore[no-untyped-call]
    return each


class _CrossEntropy(torch.autograd.Function):
    """With the bounds of torch's binary_cross_entropy: logs not below -100, the gradient's denominator not below
    1e-12. torch's own raises where p is NaN, on a GPU for good; here the loss is NaN, and the run can name the
    batch."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(p, t)
        return -(t * p.log().clamp(min=-100) + (1 - t) * (-p).log1p().clamp(min=-100))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        p, t = ctx.saved_tensors
        return gradient * (p - t) / (p * (1 - p)).clamp(min=1e-12), None
