from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count as numbers
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rml_core.config.problem import RunFailed
from rml_core.data.batches import Batch
from rml_core.engine import epoch
from rml_core.engine.epoch import Sums
from rml_core.engine.progress import Progress
from rml_core.engine.step import Training

COUNT = 10


def made(start: int = 0, broken: int | None = None, value: float = np.nan) -> Iterator[Batch]:
    """Batches of 4 samples, the last one of 2; batch `broken` (from 1) has a `value` that it should not have."""
    for number in range(1, COUNT + 1):
        size = 4 if number < COUNT else 2
        inputs = np.random.default_rng(number).standard_normal((size, 3)).astype(np.float32)
        if number == broken:
            inputs[-1, 0] = value
        if number > start:
            yield Batch(inputs, inputs.sum(1, keepdims=True), np.arange(size))


def trained(
    training: Training, batches: Iterator[Batch], sums: Sums | None = None, **changes: Any
) -> tuple[Sums, list[Progress]]:
    reports: list[Progress] = []
    ticks = numbers()
    options: dict[str, Any] = {
        "epoch": 3, "count": COUNT, "sums": sums or Sums(), "accumulate": 1, "elapsed": lambda: next(ticks) / 10,
        "stop": lambda: False, "report": reports.append, "log": None,
    }  # fmt: skip
    return epoch.train(training, batches, **{**options, **changes}), reports


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_figures_do_not_depend_on_how_often_they_are_fetched(
    training: Callable[..., Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: float
):
    monkeypatch.setattr(epoch, "FETCH_EVERY_S", every)
    log = tmp_path / "out_train.txt"
    sums, reports = trained(training(), made(), log=log)
    lines = [[float(number) for number in line.split()] for line in log.read_text().splitlines()]
    assert [line[:3] for line in lines] == [[3, number, (number - 1) / 10] for number in range(1, COUNT + 1)]
    expected = sum(line[3] * (4 if line[1] < COUNT else 2) for line in lines)
    assert sums.loss == pytest.approx(expected, rel=1e-7)
    assert (sums.samples, sums.batch, sums.stopped) == (38, COUNT, False)
    last = reports[-1]
    assert (last.epoch, last.batch, last.batches) == (3, COUNT, COUNT)
    assert last.loss == pytest.approx(lines[-1][3])
    assert len(reports) == (1 if every else COUNT)


def test_the_progress_is_that_of_the_last_batch(training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(epoch, "FETCH_EVERY_S", 0.0)
    _, reports = trained(training(), made())
    assert [report.batch for report in reports] == list(range(1, COUNT + 1))
    assert all(np.isfinite(report.loss) for report in reports)


@pytest.mark.parametrize("accumulate", [1, 3, 4])
@pytest.mark.parametrize("after", [1, 2, 5, 9, 10])
def test_a_pass_that_is_stopped_goes_on_as_if_it_had_not_been(
    training: Callable[..., Training], tmp_path: Path, accumulate: int, after: int
):
    whole = training()
    wanted, _ = trained(whole, made(), accumulate=accumulate, log=tmp_path / "whole")

    state, seen = training(), []

    def counted() -> Iterator[Batch]:
        for batch in made():
            seen.append(batch)
            yield batch

    log = tmp_path / "parts"
    first, _ = trained(state, counted(), accumulate=accumulate, log=log, stop=lambda: len(seen) >= after)
    # It stops where an update is done.
    stopped_at = min(-(-after // accumulate) * accumulate, COUNT)
    assert (first.batch, first.stopped) == (stopped_at, stopped_at < COUNT)
    if first.stopped:
        saved = Sums(first.loss, first.samples, first.batch, first.seconds)
        last, _ = trained(state, made(start=first.batch), saved, accumulate=accumulate, log=log)
    else:
        last = first
    assert (last.loss, last.samples, last.batch, last.stopped) == (wanted.loss, wanted.samples, COUNT, False)
    assert torch.equal(state.network.weight, whole.network.weight)
    logs = [
        [(*line.split()[:2], *line.split()[3:]) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(("value", "text"), [(np.nan, "nan"), (1e30, "inf")])
@pytest.mark.parametrize("every", [0.0, 1e9])
def test_a_loss_that_is_not_finite_names_epoch_and_batch(
    training: Callable[..., Training],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
    text: str,
    every: float,
):
    monkeypatch.setattr(epoch, "FETCH_EVERY_S", every)
    log = tmp_path / "out_train.txt"
    sums = Sums()
    with pytest.raises(RunFailed) as failed:
        trained(training(), made(broken=4, value=value), sums, log=log)
    assert str(failed.value) == (
        f"the loss became {text} in epoch 3, batch 4: lower optimizer.learning_rate, set optimizer.clip_norm, or look "
        "for broken samples; earlier checkpoints are kept"
    )
    lines = log.read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["1", "2", "3", "4"]
    assert lines[-1].split()[3] == text
    assert (sums.batch, sums.samples) == (3, 12)


def test_samples_that_are_broken_are_named(training: Callable[..., Training]):
    asked: list[np.ndarray] = []

    def broken(indices: np.ndarray) -> str:
        asked.append(indices)
        return "a.npy has numbers that are nan"

    with pytest.raises(RunFailed) as failed:
        trained(training(), made(broken=4), broken=broken)
    assert str(failed.value) == (
        "the loss became nan in epoch 3, batch 4: a.npy has numbers that are nan; earlier checkpoints are kept"
    )
    assert [each.tolist() for each in asked] == [[0, 1, 2, 3]]


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_samples_that_are_broken_where_they_do_not_count_are_named(
    training: Callable[..., Training], monkeypatch: pytest.MonkeyPatch, every: float
):
    """Their loss is a number, and their gradient is none: the loss of the next batch shows it."""
    monkeypatch.setattr(epoch, "FETCH_EVERY_S", every)
    state = training()

    def batches() -> Iterator[Batch]:
        for number, batch in enumerate(made(broken=4)):
            yield batch._replace(indices=batch.indices + 4 * number, kept=np.isfinite(batch.inputs).all(1))

    def objective(output: torch.Tensor, target: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        return torch.where(kept.unsqueeze(1), output - target, 0).square().mean()

    def broken(indices: np.ndarray) -> str:
        return "a.npy has numbers that are nan" if 15 in indices else ""

    state.objective = objective
    with pytest.raises(RunFailed) as failed:
        trained(state, batches(), broken=broken)
    assert str(failed.value) == (
        "the loss became nan in epoch 3, batch 5: a.npy has numbers that are nan; earlier checkpoints are kept"
    )
