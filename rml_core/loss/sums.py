"""Sums over batch and space, one a class, of probabilities and class-index targets, without one-hot targets."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Sums(NamedTuple):
    """Each (C,), over samples and pixels: of p t, of p, of t."""

    overlap: Tensor
    p: Tensor
    t: Tensor


def sums_of_values(p: Tensor, t: Tensor) -> Sums:
    """p and t: (N, C, *spatial)."""
    over = (0, *range(2, p.ndim))
    t = t.to(p.dtype)
    return Sums((p * t).sum(over), p.sum(over), t.sum(over))


def sums_of_classes(p: Tensor, target: Tensor, ignored: int | None) -> Sums:
    """p (N, C, *spatial), target (N, *spatial) class indices; one channel is the second of two classes.

    What is `ignored` is in none of the sums.
    """
    ignored = seen_ignored(target, ignored)
    return Sums(*_SumsOfClasses.apply(p, target, ignored))  # type: ignore[no-untyped-call]


class _SumsOfClasses(torch.autograd.Function):
    """A class at a time: what is made on the way has the size of one channel.

    The sums are linear in p, so the gradient is a constant a class, chosen by the target.
    """

    @staticmethod
    def forward(ctx: Any, p: Tensor, target: Tensor, ignored: int | None) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(target)
        ctx.ignored = ignored
        kept = None if ignored is None else target != ignored
        overlap, total, counts = [], [], []
        for channel in range(p.shape[1]):
            mine, of_class = _is_of(channel, target, p.shape[1], ignored), p[:, channel]
            overlap.append(torch.where(mine, of_class, 0).sum())
            total.append((of_class if kept is None else torch.where(kept, of_class, 0)).sum())
            counts.append(mine.sum())
        t = torch.stack(counts).to(p.dtype)
        ctx.mark_non_differentiable(t)
        return torch.stack(overlap), torch.stack(total), t

    @staticmethod
    def backward(ctx: Any, of_overlap: Tensor, of_p: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        (target,) = ctx.saved_tensors
        channels = len(of_p)
        parts = (
            (_is_of(channel, target, channels, ctx.ignored), of_p[channel] + of_overlap[channel], of_p[channel])
            for channel in range(channels)
        )
        if torch.is_grad_enabled():
            gradient = torch.stack([torch.where(*part) for part in parts], 1)
        else:
            # No second derivative is asked for: each part is written where it belongs.
            gradient = of_p.new_empty((len(target), channels, *target.shape[1:]))
            for channel, part in enumerate(parts):
                torch.where(*part, out=gradient[:, channel])
        if ctx.ignored is not None:
            gradient = gradient * (target != ctx.ignored).unsqueeze(1)
        return gradient, None, None


def _is_of(channel: int, target: Tensor, channels: int, ignored: int | None) -> Tensor:
    index = channel + 1 if channels == 1 else channel
    return torch.zeros_like(target, dtype=torch.bool) if index == ignored else target == index


def chosen(p: Tensor, target: Tensor | None, ignored: int | None) -> Tensor:
    """Which channels (C,) of p (N, C, *spatial) are the most probable one anywhere but where `target` is `ignored`.

    Of equal ones the first counts, as in argmax, which is many times slower over an inner axis.
    """
    most = p.amax(1)
    left = torch.ones_like(most, dtype=torch.bool) if target is None or ignored is None else target != ignored
    found = []
    for channel in range(p.shape[1]):
        mine = (p[:, channel] == most) & left
        found.append(mine.any())
        left = left & ~mine
    return torch.stack(found)


# Looking at a number costs nothing on a CPU; on a GPU it would make the host wait for everything that is under way.


def seen_all(flags: Tensor) -> bool:
    """Whether all are true, where the host can see that; else False."""
    return flags.device.type == "cpu" and bool(flags.all())


def seen_ignored(target: Tensor, ignored: int | None) -> int | None:
    """`ignored`; None where the host can see that it does not occur."""
    return None if ignored is None or seen_all(target != ignored) else ignored
