"""How far an epoch is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows; `loss` is the last batch's."""

    epoch: int
    batch: int
    batches: int
    loss: float
    samples_per_s: float
