"""Evaluate the network on the test samples."""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rml_core.engine.log import LogFiles, append, metrics_line, test_line
from tasks import ranks
from tasks.progress import publish


@dataclass(frozen=True)
class EvaluatedEpoch(ranks.Stage):
    """The figures of an evaluation; nan where there is no loss or no accuracy. `stopped`: it was cut short."""

    epoch: int
    loss: float
    accuracy: float
    samples_per_s: float
    output: Path | None = None
    stopped: bool = False
    figures: dict[str, Any] = field(default_factory=dict)


def evaluate(stage: ranks.Stage, epoch: int, output: Path | None, logs: LogFiles | None) -> EvaluatedEpoch:
    """One pass over the test samples; predictions go to `output`, figures to the logs and the run's history."""
    result = ranks.evaluate(stage.ranks, epoch, output)
    rate = result.samples / max(result.seconds, 1e-9)
    if result.stopped:
        return EvaluatedEpoch(stage.ranks, epoch, float("nan"), float("nan"), rate, stopped=True)
    figures = dict(result.figures)
    accuracy = figures.pop("accuracy", float("nan"))
    loss = result.loss / max(result.samples, 1)
    evaluated = EvaluatedEpoch(stage.ranks, epoch, loss, accuracy, rate, output, figures=figures)
    row = next((row for row in ranks.history(stage.ranks) if row["epoch"] == epoch), {"epoch": epoch})
    row = {**row, "test_loss": loss, "accuracy": accuracy, "test_samples_per_s": round(rate, 3), **figures}
    ranks.record(stage.ranks, row)
    if logs is not None:
        elapsed = ranks.elapsed(stage.ranks)
        append(logs.test, [test_line(epoch, elapsed, loss, accuracy)])
        append(logs.metrics, [metrics_line({**row, "time_s": round(elapsed, 6), "memory_mb": memory_mb()})])
    publish(evaluated)
    return evaluated


def memory_mb() -> float:
    """The most memory this process has held, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1)
