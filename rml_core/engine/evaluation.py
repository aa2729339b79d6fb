"""One pass over the test samples: loss, counts for the metrics, predictions to HDF5, a few samples to look at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rml_core.data.batches import Batch
from rml_core.engine.metrics import Metric
from rml_core.engine.precision import Precision, to_device
from rml_core.engine.predictions import Predictions
from rml_core.engine.step import Penalty, penalised

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath
    from rml_core.loss.section import Objective

# take(numbers of the samples, predictions (N, C, ...))
Take = Callable[[np.ndarray, Tensor], None]

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
    return np.array(sample.float().cpu().numpy() if isinstance(sample, Tensor) else sample)


@dataclass(frozen=True)
class Evaluated:
    """A rank's share of an evaluation: sums and counts, to be added to those of the other ranks."""

    loss: float
    samples: int
    seconds: float
    counts: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    objective: Objective | None,
    metric: Metric | None,
    batches: Iterator[Batch],
    *,
    device: torch.device,
    precision: Precision,
    names: Sequence[str],
    output: AnyPath | None,
    gallery: Gallery,
    stop: Callable[[], bool],
    places: Sequence[str] | None = None,
    penalty: Penalty | None = None,
    report: Callable[[int, int, float], None] | None = None,
    take: Take | None = None,
) -> Evaluated:
    """Run `network` over `batches`. Nothing of a pass that is stopped stays behind. `places`: the names that the
    gallery has, where these say more.

    `report(samples, bytes, seconds)` is called behind each batch with what has been predicted until then, and
    `take(numbers, predictions)` with the batch's own, as they are on the network's device.
    """
    network.eval()
    began = time.perf_counter()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    samples = predicted = 0
    with Predictions(output, names) as predictions:
        for batch in batches:
            if stop():
                predictions.discard()
                return Evaluated(0.0, samples, time.perf_counter() - began, stopped=True)
            inputs, targets, kept = to_device(batch, device, precision)
            with precision.context(device):
                result = network(inputs)
                if objective is not None and targets is not None:
                    loss += penalised(objective(result, targets, kept), penalty).double() * len(batch.indices)
                    if metric is not None:
                        metric.update(result, targets, kept)
            samples += len(batch.indices)
            predictions.add(batch.indices, result)
            if take is not None:
                take(batch.indices, result)
            gallery.add(batch, result, places if places is not None else names)
            if report is not None:
                predicted += result.nbytes
                report(samples, predicted, time.perf_counter() - began)
    scored = objective is not None and metric is not None
    counts = metric.state() if metric is not None and scored else {}
    total = float(loss) if scored else float("nan")
    figures = metric.result(counts) if metric is not None and scored else {}
    return Evaluated(total, samples, time.perf_counter() - began, counts, figures)
