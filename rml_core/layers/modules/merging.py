"""Operations on several tensors (N, C, *spatial)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import torch
from torch import Tensor

from rml_core.layers.section import Run

_PAIRWISE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "average": torch.add,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
# Each with the number as its second operand, and as its first.
_WITH_NUMBER: dict[str, tuple[Callable[[Tensor, float], Tensor], Callable[[Tensor, float], Tensor]]] = {
    "add": (torch.add, torch.add),
    "subtract": (torch.sub, torch.rsub),
    "multiply": (torch.mul, torch.mul),
    "divide": (torch.div, lambda x, number: number / x),
    "average": (lambda x, number: (x + number) / 2, lambda x, number: (x + number) / 2),
    "maximum": (lambda x, number: x.clamp(min=number), lambda x, number: x.clamp(min=number)),
    "minimum": (lambda x, number: x.clamp(max=number), lambda x, number: x.clamp(max=number)),
}


def merge(operation: str, axes: tuple[int, ...], numbers: tuple[tuple[int, float], ...]) -> Run | None:
    """`axes`: how many each sample has; None where a single input passes unchanged.

    `numbers`: which operands are numbers, and their values; there is then one input.
    """
    if numbers:
        ((place, number),) = numbers
        return partial(_with_number, operation=operation, place=place, number=number)
    pairwise = _PAIRWISE[operation]
    count = len(axes)
    if count == 1:
        return None
    run: Run = pairwise if count == 2 else partial(_reduced, pairwise=pairwise)
    if operation == "average":
        run = partial(_averaged, total=run, count=count)
    return _broadcast(run, axes)


def add_scaled(axes: tuple[int, ...], scale: float) -> Run:
    return _broadcast(partial(torch.add, alpha=scale), axes)


def _broadcast(run: Run, axes: tuple[int, ...]) -> Run:
    missing = tuple(max(axes) - size for size in axes)
    return partial(_aligned, run=run, missing=missing) if any(missing) else run


def _with_number(x: Tensor, operation: str, place: int, number: float) -> Tensor:
    return _WITH_NUMBER[operation][1 - place](x, number)


def _reduced(*tensors: Tensor, pairwise: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return reduce(pairwise, tensors)


def _averaged(*tensors: Tensor, total: Run, count: int) -> Tensor:
    return total(*tensors) / count


def _aligned(*tensors: Tensor, run: Run, missing: tuple[int, ...]) -> Tensor:
    """Keras aligns shapes at their ends, and channels are last there: the missing axes are the first spatial ones."""
    return run(*(x[(slice(None), slice(None), *[None] * n)] for x, n in zip(tensors, missing, strict=True)))


def concatenate(dim: int) -> Run:
    return partial(_concatenated, dim=dim)


def _concatenated(*tensors: Tensor, dim: int) -> Tensor:
    return torch.cat(tensors, dim)
