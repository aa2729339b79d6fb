"""One pass over the test samples: loss, counts for the metrics, predictions to HDF5, a few samples to look at."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rml_core.data.batches import Batch
from rml_core.engine.gallery import Gallery
from rml_core.engine.metrics import Metric
from rml_core.engine.precision import Precision, to_device
from rml_core.engine.predictions import Predictions
from rml_core.engine.step import Penalty, penalised

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath
    from rml_core.loss.section import Objective

# take(numbers of the samples, predictions (N, C, ...))
Take = Callable[[np.ndarray, Tensor], None]


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
