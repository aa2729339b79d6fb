"""One pass over the training samples: batches through `step`, figures fetched from the device now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rml_core.config.problem import RunFailed
from rml_core.data.batches import Batch
from rml_core.engine.log import append, train_line
from rml_core.engine.precision import to_device
from rml_core.engine.progress import Progress
from rml_core.engine.step import Training, step

# Losses and norms stay on the device for at most so long; the log and the progress bar move as often.
FETCH_EVERY_S = 0.25


@dataclass
class Sums:
    """What an epoch adds up, over a rank's share of the samples. `stopped` in mid-epoch after `batch` batches."""

    loss: float = 0.0
    samples: int = 0
    batch: int = 0
    seconds: float = 0.0
    stopped: bool = False


def kept_before(epoch: int) -> str:
    """What to say of earlier epochs where one has failed."""
    return "; earlier checkpoints are kept" if epoch > 1 else ""


@dataclass
class _Pending:
    """Figures of batches that are still on the device, with what the host knows of them. `suspect`: the samples of the
    first batch whose gradient was nan while its loss was a number: what is nan where targets do not count."""

    losses: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    batches: list[tuple[int, np.ndarray, float]] = field(default_factory=list)
    suspect: np.ndarray | None = None


def train(
    training: Training,
    batches: Iterator[Batch],
    *,
    epoch: int,
    count: int,
    sums: Sums,
    accumulate: int,
    elapsed: Callable[[], float],
    stop: Callable[[], bool],
    report: Callable[[Progress], None],
    log: Path | None,
    broken: Callable[[np.ndarray], str] = lambda indices: "",
) -> Sums:
    """Train on the epoch's remaining batches; `sums` holds what the batches before them gave.

    It stops early, after an update, when `stop` says so. `broken` says what is wrong with samples, asked only where a
    loss is not finite; "": nothing.

    Raises:
        RunFailed: a loss that is not finite; the log then ends with that batch.
    """
    training.network.train()
    began, before, pending = time.perf_counter(), sums.seconds, _Pending()
    fetched = began
    for number, batch in enumerate(batches, start=sums.batch + 1):
        inputs, targets, kept = to_device(batch, training.device, training.precision)
        assert targets is not None
        first = (number - 1) % accumulate == 0
        update = number % accumulate == 0 or number == count
        share = 1 / min(accumulate, count - (number - 1) // accumulate * accumulate)
        loss, norm = step(training, inputs, targets, kept, share=share, first=first, update=update)
        pending.losses.append(loss)
        pending.norms.append(norm)
        pending.batches.append((number, batch.indices, elapsed()))
        now = time.perf_counter()
        if now - fetched > FETCH_EVERY_S:
            fetched = now
            sums.seconds = before + now - began
            figures = _fetch(pending, epoch, sums, log, broken)
            report(Progress(epoch, number, count, figures[-1][1], sums.samples / sums.seconds, figures))
        if update and stop():
            sums.stopped = number < count
            break
    sums.seconds = before + time.perf_counter() - began
    if pending.batches:
        figures = _fetch(pending, epoch, sums, log, broken)
        report(Progress(epoch, sums.batch, count, figures[-1][1], sums.samples / sums.seconds, figures))
    return sums


def _fetch(
    pending: _Pending, epoch: int, sums: Sums, log: Path | None, broken: Callable[[np.ndarray], str]
) -> tuple[tuple[int, float, float], ...]:
    """Bring the pending figures to the host: log lines, sums; gives (batch, loss, norm) of each."""
    figures = torch.stack([torch.stack(pending.losses).double(), torch.stack(pending.norms).double()]).tolist()
    lines = []
    fetched = []
    wrong: tuple[int, float, np.ndarray] | None = None
    for (number, indices, time_s), last, norm in zip(pending.batches, *figures, strict=True):
        lines.append(train_line(epoch, number, time_s, last, norm))
        fetched.append((number, last, norm))
        if not math.isfinite(last):
            wrong = (number, last, indices)
            break
        if math.isnan(norm) and pending.suspect is None:
            pending.suspect = indices
        sums.loss += last * len(indices)
        sums.samples += len(indices)
        sums.batch = number
    if log is not None:
        append(log, lines)
    if wrong is not None:
        number, loss, indices = wrong
        mend = "lower optimizer.learning_rate, set optimizer.clip_norm, or look for broken samples"
        found = broken(indices) or (broken(pending.suspect) if pending.suspect is not None else "")
        raise RunFailed(f"the loss became {loss} in epoch {epoch}, batch {number}: {found or mend}{kept_before(epoch)}")
    pending.losses.clear()
    pending.norms.clear()
    pending.batches.clear()
    return tuple(fetched)
