"""Dropout of tensors (N, C, *spatial) from torch's own generator, which the engine seeds."""

from __future__ import annotations

from torch import nn

from rml_core.layers.section import Run

_SPATIAL = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}


def dropout(rate: float) -> Run:
    return nn.Dropout(rate)


def spatial_dropout(rate: float, rank: int) -> Run:
    """Whole channels of a sample are dropped."""
    return _SPATIAL[rank](rate)
