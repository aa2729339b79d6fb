"""Train one epoch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rml_core.engine.log import append, metrics_line
from tasks import ranks
from tasks.progress import log, publish


@dataclass(frozen=True)
class TrainedEpoch(ranks.Stage):
    """Training has reached the end of `epoch`, or was stopped in it behind `batch` (0 when complete)."""

    epoch: int
    batch: int
    loss: float
    learning_rate: float
    samples_per_s: float
    seconds: float


def train_epoch(stage: ranks.Stage, epoch: int, metrics: Path | None) -> TrainedEpoch:
    """Train epoch `epoch` to its end, or until the ranks are stopped.

    Its figures go to the run's history; to the file `metrics` where no evaluation follows to complete them.
    """
    sums, rate = ranks.train_epoch(stage.ranks, epoch, publish)
    for line in ranks.warnings(stage.ranks):
        log.warning(f"warning: {line}")
    trained = TrainedEpoch(
        ranks=stage.ranks,
        epoch=epoch,
        batch=sums.batch if sums.stopped else 0,
        loss=sums.loss / max(sums.samples, 1),
        learning_rate=rate,
        samples_per_s=sums.samples / max(sums.seconds, 1e-9),
        seconds=sums.seconds,
    )
    if not sums.stopped:
        row = {
            "epoch": epoch,
            "train_loss": trained.loss,
            "learning_rate": rate,
            "samples_per_s": round(trained.samples_per_s, 3),
            "train_seconds": round(trained.seconds, 6),
        }
        measured = ranks.measured(stage.ranks)
        row |= {key: value for key, value in measured.items() if key.endswith("memory_mb")}
        ranks.record(stage.ranks, row)
        if metrics is not None:
            append(metrics, [metrics_line({**row, **measured})])
    publish(trained)
    return trained
