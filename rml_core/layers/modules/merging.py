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
    "average": torch.add,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}


def merge(operation: str, axes: tuple[int, ...]) -> Run | None:
    """`axes`: how many each sample has; None where a single input passes unchanged."""
    pairwise = _PAIRWISE[operation]
    count = len(axes)
    if count == 1:
        return None
    run: Run = pairwise if count == 2 else partial(_reduced, pairwise=pairwise)
    if operation == "average":
        run = partial(_averaged, total=run, count=count)
    missing = tuple(max(axes) - size for size in axes)
    return partial(_aligned, run=run, missing=missing) if any(missing) else run


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
