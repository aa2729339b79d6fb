"""A few test samples to look at. Imports no torch: pictures of them are drawn by a process that has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from rml_core.data.batches import Batch

# As many samples as a page of pictures can show, no side longer than a thumbnail's.
GALLERY = 32
THUMBNAIL = 128


@dataclass
class Gallery:
    """A few test samples to look at, spread over the whole set: `inputs` (C, ...), `outputs` (C2, ...), `targets`
    (none where there are none), `names`: of slices with their places."""

    count: int = 0
    inputs: list[np.ndarray] = field(default_factory=list)
    outputs: list[np.ndarray] = field(default_factory=list)
    targets: list[np.ndarray] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(self, batch: Batch, result: Tensor, names: Sequence[str]) -> None:
        """Keep what is wanted of a batch of a set with `count` samples."""
        wanted = [row for row, index in enumerate(batch.indices.tolist()) if index in self._spread]
        if not wanted:
            return
        self.inputs += [_thumbnail(batch.inputs[row]) for row in wanted]
        self.outputs += [_thumbnail(result[row]) for row in wanted]
        if batch.targets is not None:
            self.targets += [_thumbnail(batch.targets[row]) for row in wanted]
        self.names += [names[batch.indices[row]] for row in wanted]

    @cached_property
    def _spread(self) -> frozenset[int]:
        return frozenset(np.linspace(0, self.count - 1, GALLERY).round().astype(int).tolist())


def _thumbnail(sample: Any) -> np.ndarray:
    """Every n-th pixel of a sample (C, H, W), or of a mask (H, W), an array or a tensor; what is no picture stays."""
    if sample.ndim >= 2:
        height, width = (-(-size // THUMBNAIL) for size in sample.shape[-2:])
        sample = sample[..., ::height, ::width]
    # torch would wake its threads for a copy.
    return np.array(sample if isinstance(sample, np.ndarray | np.generic) else sample.float().cpu().numpy())
