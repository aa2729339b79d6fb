"""Sums over batch and space, one a class: of probabilities, of targets, of their products."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rml_core.loss.pieces import flat, in_pieces, indices, one_or_zero, pieces, seen_ignored, taken


class Sums(NamedTuple):
    """Each (C,), over samples and pixels: of p t, of p, of t."""

    overlap: Tensor
    p: Tensor
    t: Tensor


def sums_of_values(p: Tensor, t: Tensor, kept: Tensor | None = None) -> Sums:
    """p and t: (N, C, *spatial). kept (N, *spatial), bool: where they count; None: everywhere."""
    over = (0, *range(2, p.ndim))
    t = t.to(p.dtype)
    if kept is not None:
        p, t = p * kept.unsqueeze(1), t * kept.unsqueeze(1)
    return Sums((p * t).sum(over), p.sum(over), t.sum(over))


def sums_of_classes(x: Tensor, target: Tensor, ignored: int | None, softmax: bool = False) -> Sums:
    """x (N, C, *spatial): p, or with `softmax` its logits; target (N, *spatial): class indices.

    One channel is the second of two classes. What is `ignored` is in none of the sums.
    """
    of = _SumsOfClasses.apply(*flat(x, target), seen_ignored(target, ignored), softmax)  # type: ignore[no-untyped-call]
    return Sums(*of)


class _SumsOfClasses(torch.autograd.Function):
    """The sums are linear in p, so p's gradient is a constant a class, chosen by the target."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, ignored: int | None, softmax: bool) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, target)
        ctx.ignored, ctx.softmax = ignored, softmax
        classes = indices(x, x.shape[1], ignored)
        parts = []
        for place in pieces(target):
            p, of = taken(x, place), target[place]
            p = p.softmax(1) if softmax else p
            mine = one_or_zero(of, classes)
            p = p if ignored is None else p.masked_fill((of == ignored).unsqueeze(1), 0)
            parts.append(torch.stack([(p * mine).sum((0, 2)), p.sum((0, 2)), mine.sum((0, 2))]))
        overlap, total, count = torch.stack(parts).sum(0).unbind()
        ctx.mark_non_differentiable(count)
        return overlap, total, count

    @staticmethod
    def backward(ctx: Any, of_overlap: Tensor, of_p: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, target = ctx.saved_tensors
        classes = indices(x, x.shape[1], ctx.ignored)
        of_mine, of_each = of_overlap.view(1, -1, 1), of_p.view(1, -1, 1)

        def gradient(x: Tensor, target: Tensor) -> Tensor:
            result = one_or_zero(target, classes) * of_mine + of_each
            if ctx.ignored is not None:
                result = result * (target != ctx.ignored).unsqueeze(1)
            if ctx.softmax:
                p = x.softmax(1)
                if ctx.ignored is not None:
                    p = p.masked_fill((target == ctx.ignored).unsqueeze(1), 0)
                result = p * result
                result = torch.addcmul(result, p, result.sum(1, keepdim=True), value=-1)
            return result

        return in_pieces(gradient, x, target), None, None, None


def chosen(x: Tensor, kept: Tensor | None) -> Tensor:
    """Which channels (C,) of x (N, C, *spatial) are the largest one anywhere in `kept` (N, *spatial); None: anywhere.

    Of equal ones the first counts, as in argmax, which is many times slower over an inner axis.
    """
    most = x.amax(1)
    left = torch.ones_like(most, dtype=torch.bool) if kept is None else kept
    found = []
    for channel in range(x.shape[1]):
        mine = (x[:, channel] == most) & left
        found.append(mine.any())
        left = left & ~mine
    return torch.stack(found)
