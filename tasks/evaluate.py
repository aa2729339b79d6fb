"""Evaluate the network on the test samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rml_core.engine.log import LogFiles, append, metrics_line, test_line
from tasks import ranks
from tasks.progress import log, publish

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath
    from tasks.assemble import Assembling


@dataclass(frozen=True)
class EvaluatedEpoch(ranks.Stage):
    """The figures of an evaluation; nan where there is no loss or no accuracy, and where it was stopped."""

    epoch: int
    loss: float
    accuracy: float
    samples_per_s: float


@dataclass(frozen=True)
class AssembledEpoch(ranks.Stage):
    """What an evaluation predicted is in one file. `figures`: of the assembled volume of each slice set."""

    epoch: int
    figures: dict[str, dict[str, Any]]


def evaluate(
    stage: ranks.Stage,
    epoch: int,
    output: AnyPath | None,
    logs: LogFiles | None,
    assembling: Assembling | None = None,
) -> EvaluatedEpoch:
    """One pass over the test samples; predictions go to `output`, figures to the logs and the run's history.

    `assembling`: takes the predictions too, and completes the epoch's figures when all of them are there.
    """
    take = None
    if assembling is not None:
        from tasks.assemble import taking

        take = taking(assembling, lambda: ranks.stopped(stage.ranks))
    result = ranks.evaluate(stage.ranks, epoch, output, publish, take)
    for line in ranks.warnings(stage.ranks):
        log.warning(f"warning: {line}")
    rate = result.samples / max(result.seconds, 1e-9)
    if result.stopped:
        return EvaluatedEpoch(stage.ranks, epoch, float("nan"), float("nan"), rate)
    figures = dict(result.figures)
    accuracy = figures.pop("accuracy", float("nan"))
    loss = result.loss / max(result.samples, 1)
    evaluated = EvaluatedEpoch(stage.ranks, epoch, loss, accuracy, rate)
    row = next((row for row in reversed(ranks.history(stage.ranks)) if row["epoch"] == epoch), {"epoch": epoch})
    row = {**row, "test_loss": loss, "accuracy": accuracy, "test_samples_per_s": round(rate, 3), **figures}
    ranks.record(stage.ranks, row)
    if logs is not None:
        measured = ranks.measured(stage.ranks)
        append(logs.test, [test_line(epoch, measured["time_s"], loss, accuracy)])
        if assembling is None:
            append(logs.metrics, [metrics_line({**row, **measured})])
    publish(evaluated)
    return evaluated
