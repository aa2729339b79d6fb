"""The Lovasz extension of the Jaccard loss: Yu and Blaschko (arXiv:1512.07797, section 3), of the errors of
Lovasz-softmax and Lovasz-hinge (arXiv:1705.08790).

It is the sum of the errors in descending order, each times the growth of the Jaccard loss when its pixel joins those
that are wrong. At place i (from 1), with f pixels of the class behind that place, the union of what is there and what
is predicted is u = i + f, and the growth 1 / u for a pixel of the class, f / (u (u - 1)) for another. An error of 0 has
no part in it, and neither has what is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rml_core.loss.classes import share
from rml_core.loss.pieces import seen_all, seen_ignored

# From so many numbers on torch sorts whole numbers of one row by radix: several times faster on a CPU.
BY_RADIX = 32768

# Of x and a tensor for the derivatives, or None where nobody wants them: a scalar.
Compute = Callable[[Tensor, Tensor | None], Tensor]


def softmax(p: Tensor, target: Tensor, weights: Tensor, ignored: int | None, per_image: bool) -> Tensor:
    """The mean by `weights` (C,) over the classes in `target`; 0 where there are none.

    p (N, C, *spatial) probabilities, target (N, *spatial) class indices. `per_image`: of each image, then the mean
    over the images that have a class with a weight.
    """
    ignored = seen_ignored(target, ignored)
    images = len(p) if per_image else 1
    classes = [target == channel for channel in range(p.shape[1])]
    if ignored is not None and 0 <= ignored < len(classes):
        classes[ignored] = torch.zeros_like(classes[ignored])
    present = torch.stack([mine.view(images, -1).any(1) for mine in classes], 1)
    counted = weights * present
    shares = share(counted, counted.sum(1, keepdim=True))
    shares = share(shares, counted.any(1).sum().to(p.dtype))

    def compute(p: Tensor, gradient: Tensor | None) -> Tensor:
        losses = []
        for channel, mine in enumerate(classes):
            part = None if gradient is None else gradient[:, channel]
            if seen_all(shares[:, channel] == 0):
                if part is not None:
                    part.zero_()
                continue
            off = p[:, channel] - mine.to(p.dtype)
            if ignored is not None:
                off *= target != ignored
            loss, growth = extension(off.abs().reshape(images, -1), mine.view(images, -1), part is not None)
            losses.append((loss * shares[:, channel]).sum())
            if part is not None and growth is not None:
                growth *= shares[:, channel, None]
                torch.mul(growth.view(off.shape), off.sign_(), out=part)
        return torch.stack(losses).sum() if losses else p.new_zeros(())

    return _piecewise_linear(p, compute)


def hinge(x: Tensor, target: Tensor, ignored: int | None, per_image: bool) -> Tensor:
    """Of logits x (N, 1, *spatial) of the second of two classes. `per_image`: of each image, then the mean over the
    images with a pixel that is not ignored."""
    ignored = seen_ignored(target, ignored)
    images = len(x) if per_image else 1
    mine = (target == 1) if ignored != 1 else torch.zeros_like(target, dtype=torch.bool)
    kept = torch.ones_like(mine) if ignored is None else target != ignored
    counted = kept.view(images, -1).any(1).to(x.dtype)
    shares = share(counted, counted.sum())

    def compute(x: Tensor, gradient: Tensor | None) -> Tensor:
        towards = 1 - 2 * mine.to(x.dtype)
        if ignored is not None:
            towards *= kept
        errors = (x[:, 0] * towards).add_(1).clamp_(min=0)
        if ignored is not None:
            errors *= kept
        loss, growth = extension(errors.reshape(images, -1), mine.view(images, -1), gradient is not None)
        if gradient is not None and growth is not None:
            growth *= shares[:, None]
            torch.mul(growth.view(errors.shape), towards * (errors > 0), out=gradient[:, 0])
        return (loss * shares).sum()

    return _piecewise_linear(x, compute)


def extension(errors: Tensor, of_class: Tensor, wanted: bool) -> tuple[Tensor, Tensor | None]:
    """Row by row: errors (R, n), none below 0, of pixels that are `of_class` (R, n) or not.

    Returns the extensions (R,) and, where `wanted`, the growth that belongs to each error (R, n): the gradient.
    """
    # Bits of floats that are not negative are in the order of the numbers.
    ordered, order = _sorted(errors.view(torch.int64 if errors.dtype == torch.float64 else torch.int32))
    ordered = ordered.view(errors.dtype)
    mine = of_class.gather(1, order).to(torch.int32)
    behind = mine.cumsum(1, dtype=torch.int32) - mine
    places = torch.arange(errors.shape[1], 0, -1, device=errors.device, dtype=torch.int32)
    union = (behind + places).to(errors.dtype)
    # f of pixels that are not of the class, u - 1 of those that are: over u (u - 1).
    grown = torch.addcmul(behind, mine, places - 1).to(errors.dtype).div_(union - 1).div_(union)
    # The worst pixel's, where the formulas of both kinds agree, but for 0 / 0.
    grown[:, -1] = 1 / union[:, -1]
    loss = (ordered * grown).sum(1)
    return loss, torch.empty_like(grown).scatter_(1, order, grown) if wanted else None


def _sorted(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Each row in ascending order, and where its members were."""
    if len(keys) == 1 or keys.shape[1] < BY_RADIX:
        values, order = (keys[0] if len(keys) == 1 else keys).sort(-1)
        return values.view(keys.shape), order.view(keys.shape)
    rows = [row.sort() for row in keys]
    return torch.stack([row.values for row in rows]), torch.stack([row.indices for row in rows])


def _piecewise_linear(x: Tensor, compute: Compute) -> Tensor:
    """What `compute` gives of x, with the derivatives that it finds on the way."""
    if not (x.requires_grad and torch.is_grad_enabled()):
        value: Tensor = compute(x, None)
        return value
    return _PiecewiseLinear.apply(x, compute)  # type: ignore[no-untyped-call]


class _PiecewiseLinear(torch.autograd.Function):
    """The derivative is found with the value; the second one is 0 wherever there is one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, compute: Compute) -> Tensor:
        gradient = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        value: Tensor = compute(x, gradient)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, of_value: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return of_value * gradient, None
