"""The loop over epochs: train, checkpoint, evaluate, as planned; ended early by a signal or by `early_stopping`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.plan import Epoch, Group
from rml_core.checkpoints import native
from rml_core.checkpoints.section import Checkpoints
from rml_core.config.problem import RunFailed
from rml_core.engine.log import LogFiles, sync
from rml_core.optimizer import OptimizerSection
from rml_core.run import EarlyStopping
from tasks import ranks
from tasks.checkpoint import checkpoint, checkpoint_epoch
from tasks.evaluate import evaluate
from tasks.interrupt import Interruption
from tasks.progress import log
from tasks.train_epoch import TrainedEpoch, train_epoch

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath
    from tasks.assemble import Assembling

# Calls a phase's function: do(name, function, *arguments).
Do = Callable[..., Any]


def as_it_is(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """A phase as a plain call."""
    return function(*arguments)


@dataclass(frozen=True)
class Loop:
    """What the loop needs to know of the run."""

    run_id: str
    optimizer: OptimizerSection | None
    checkpoints: Checkpoints | None
    early_stopping: EarlyStopping | None
    save: AnyPath | None
    output: AnyPath | None
    logs: LogFiles | None
    debug: Path | None
    debug_interval: int
    # What assembles the predictions of an epoch, started; None: nothing does.
    assembling: Callable[[Epoch], Assembling] | None = None


@dataclass(frozen=True)
class Ended(ranks.Stage):
    """Training ends before its last epoch, in good order."""

    why: str


def run_groups(loop: Loop, groups: tuple[Group, ...], stage: ranks.Stage, do: Do, interruption: Interruption) -> None:
    """Run the planned epochs.

    A signal ends them behind the batch under way, with a checkpoint, and is then delivered to who waits for it.
    """
    for group in groups:
        if group.phase is None:
            stage = _epochs(loop, group, stage, interruption, do)
        else:
            stage = do(group.phase.name, _epochs, loop, group, stage, interruption)
        if isinstance(stage, Ended):
            log.warning(stage.why)
            break
    if interruption.signal is not None:
        interruption.deliver()
    elif loop.save is not None and native.has_interrupted(loop.save):
        # The run began from it with nothing left to train: no epoch's checkpoint need hold what it holds.
        epoch, batch = ranks.position(stage.ranks)
        if not batch:
            _save(loop, epoch, f"checkpoint epoch {epoch}", stage, do)


def _epochs(loop: Loop, group: Group, stage: ranks.Stage, interruption: Interruption, do: Do = as_it_is) -> ranks.Stage:
    for epoch in group.epochs:
        stage = _epoch(loop, epoch, stage, interruption, do)
        if isinstance(stage, Ended):
            break
    return stage


def _epoch(loop: Loop, epoch: Epoch, stage: ranks.Stage, interruption: Interruption, do: Do) -> ranks.Stage:
    if epoch.train is not None:
        change = loop.optimizer.change_before(epoch.number) if loop.optimizer is not None else ""
        if change:
            log.info(change)
        metrics = loop.logs.metrics if loop.logs is not None and epoch.evaluate is None else None
        trained: TrainedEpoch = do(epoch.train.name, train_epoch, stage, epoch.number, metrics)
        stage = trained
        if loop.debug is not None and epoch.number % loop.debug_interval == 0:
            ranks.debug_statistics(stage.ranks, loop.debug / f"debug_{epoch.number}.json")
        if trained.batch:
            return _interrupted(loop, stage, do)
    if epoch.checkpoint is not None:
        stage = _save(loop, epoch.number, epoch.checkpoint.name, stage, do)
    if epoch.train is not None and interruption.signal is not None:
        return _interrupted(loop, stage, do)
    if epoch.evaluate is not None:
        stage = _evaluate(loop, epoch, stage, interruption, do)
        if interruption.signal is not None:
            return _interrupted(loop, stage, do) if epoch.train is not None else Ended(stage.ranks, "interrupted")
        stage = _judge(loop, epoch, stage, do)
    return stage


def _evaluate(loop: Loop, epoch: Epoch, stage: ranks.Stage, interruption: Interruption, do: Do) -> ranks.Stage:
    """Evaluate, and assemble what was predicted; of an evaluation that is interrupted nothing stays."""
    assert epoch.evaluate is not None
    output = loop.output / f"output_{epoch.number}.h5" if loop.output is not None else None
    if loop.assembling is None or epoch.assemble is None:
        return do(epoch.evaluate.name, evaluate, stage, epoch.number, output, loop.logs)
    from tasks.assemble import assemble, discard

    assembling = loop.assembling(epoch)
    try:
        stage = do(epoch.evaluate.name, evaluate, stage, epoch.number, output, loop.logs, assembling)
        if interruption.signal is None:
            stage = do(epoch.assemble.name, assemble, stage, assembling, epoch.number, loop.logs)
    except RunFailed as failed:
        # What was waited for until the signal came is said; the run ends as interrupted ones do.
        if interruption.signal is None:
            raise
        log.warning(str(failed))
    finally:
        discard(assembling)
    return stage


def _save(loop: Loop, epoch: int, name: str, stage: ranks.Stage, do: Do) -> ranks.Stage:
    assert loop.save is not None
    assert loop.checkpoints is not None
    if loop.logs is not None:
        sync(loop.logs)
    return do(name, checkpoint_epoch, stage, epoch, loop.save, loop.run_id, loop.checkpoints.keep)


def _judge(loop: Loop, epoch: Epoch, stage: ranks.Stage, do: Do) -> ranks.Stage:
    """What an evaluation decides: whether these weights are the best yet, and whether to go on."""
    history = ranks.history(stage.ranks)
    stopping = loop.early_stopping
    if loop.save is not None and loop.checkpoints is not None and loop.checkpoints.best:
        metric = stopping.metric if stopping is not None else None
        if best_epoch(history, metric) == epoch.number:
            name = f"checkpoint best, epoch {epoch.number}"
            stage = do(name, checkpoint, stage, native.best_path(loop.save))
    if stopping is not None and out_of_patience(history, stopping):
        if loop.save is not None and epoch.train is not None and epoch.checkpoint is None:
            stage = _save(loop, epoch.number, f"checkpoint epoch {epoch.number}", stage, do)
        return Ended(
            stage.ranks,
            f"early stopping: {stopping.metric} has not improved for {stopping.patience} epochs",
        )
    return stage


def _interrupted(loop: Loop, stage: ranks.Stage, do: Do) -> Ended:
    if loop.save is None:
        return Ended(stage.ranks, "interrupted; nothing was saved, because checkpoints.save is not set")
    path = native.interrupted_path(loop.save)
    if loop.logs is not None:
        sync(loop.logs)
    do("checkpoint interrupted", checkpoint, stage, path)
    return Ended(stage.ranks, f"interrupted; --resume auto goes on from {path}")


def best_epoch(history: list[dict[str, Any]], metric: str | None) -> int | None:
    """The epoch with the best evaluation: the highest accuracy where there is one, else the lowest loss; the first
    of equals."""
    rows = [row for row in history if "test_loss" in row]
    if metric is None:
        metric = "accuracy" if any(_is_number(row["accuracy"]) for row in rows) else "loss"
    rows = [row for row in rows if _is_number(_badness(row, metric))]
    return min(rows, key=lambda row: (_badness(row, metric), row["epoch"]))["epoch"] if rows else None


def out_of_patience(history: list[dict[str, Any]], stopping: EarlyStopping) -> bool:
    """No evaluation of the last `patience` epochs was better than the best before by more than `min_delta`."""
    best, waited = math.inf, 0
    for row in history:
        if "test_loss" not in row:
            continue
        badness = _badness(row, stopping.metric)
        if badness < best - stopping.min_delta:
            best, waited = badness, 0
        else:
            waited += 1
    return waited >= stopping.patience


def _badness(row: dict[str, Any], metric: str) -> float:
    return -row["accuracy"] if metric == "accuracy" else row["test_loss"]


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and math.isfinite(value)
