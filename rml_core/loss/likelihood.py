"""The log-probability of the target's class, from logits, without those of the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rml_core.loss.pieces import flat, in_pieces, indices, one_or_zero, pieces, seen_ignored, taken


def log_likelihood(logits: Tensor, target: Tensor, ignored: int | None) -> Tensor:
    """logits (N, C, *spatial), target (N, *spatial) class indices: log p_t (N, *spatial), 0 where it is `ignored`."""
    picked: Tensor = _LogLikelihood.apply(*flat(logits, target), seen_ignored(target, ignored))  # type: ignore[no-untyped-call]
    return picked.view(target.shape)


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, ignored: int | None) -> Tensor:
        ctx.save_for_backward(x, target)
        ctx.ignored = ignored
        picked = torch.empty(target.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        for place in pieces(target):
            of = target[place]
            each = taken(x, place).log_softmax(1).gather(1, of.clamp(min=0).unsqueeze(1)).squeeze(1)
            picked[place] = each if ignored is None else each.masked_fill(of == ignored, 0)
        return picked

    @staticmethod
    def backward(ctx: Any, of_picked: Tensor) -> tuple[Tensor | None, ...]:
        x, target = ctx.saved_tensors

        classes = indices(x, x.shape[1], None)

        def gradient(x: Tensor, target: Tensor, factor: Tensor) -> Tensor:
            result = (one_or_zero(target, classes) - x.softmax(1)) * factor.unsqueeze(1)
            return result if ctx.ignored is None else result.masked_fill((target == ctx.ignored).unsqueeze(1), 0)

        return in_pieces(gradient, x, target, of_picked), None, None
