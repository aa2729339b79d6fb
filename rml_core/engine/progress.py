"""How far a pass is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows; `loss` is the last batch's. `figures`: (batch, loss, gradient norm) of the batches
    since the last report."""

    epoch: int
    batch: int
    batches: int
    loss: float
    samples_per_s: float
    figures: tuple[tuple[int, float, float], ...] = ()


@dataclass(frozen=True)
class Blocks:
    """How far the work on a volume is: `done` of `total` blocks, which are `bytes` until now (0: not known), in
    `seconds`."""

    phase: str
    done: int
    total: int
    bytes: int
    seconds: float

    @property
    def mb_per_s(self) -> float:
        return self.bytes / 1e6 / max(self.seconds, 1e-9)
