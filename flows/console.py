"""What a person sees of a run: a progress bar an epoch on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.plan import MOST_EPOCH_PHASES
from rml_core.engine.progress import Blocks, Progress
from tasks.evaluate import AssembledEpoch, EvaluatedEpoch
from tasks.progress import listening, log
from tasks.train_epoch import TrainedEpoch

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from rml_core.config.paths import AnyPath

# The attribute of a log record that says an epoch of so many that not each need be told everywhere.
OF_MANY = "of_many"


def line_of(
    trained: TrainedEpoch | None,
    evaluated: EvaluatedEpoch | None,
    last: int,
    assembled: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """`epoch 3/12  loss 0.2718  test loss 0.3141  accuracy 0.9500  assembled bricks 0.9600  1234 samples/s`; what there
    is of it. `assembled`: figures of each set's assembled volume."""
    parts = []
    if trained is not None:
        parts += [f"epoch {trained.epoch}/{last}", f"loss {trained.loss:.4g}"]
    elif evaluated is not None:
        parts.append(f"evaluation of epoch {evaluated.epoch}")
    if evaluated is not None and math.isfinite(evaluated.loss):
        parts.append(f"test loss {evaluated.loss:.4g}")
    if evaluated is not None and math.isfinite(evaluated.accuracy):
        parts.append(f"accuracy {evaluated.accuracy:.4f}")
    sets = [f"{name} {figure}" for name, figures in (assembled or {}).items() if (figure := _figure(figures))]
    if sets:
        parts.append(f"assembled {', '.join(sets)}")
    parts += [f"{each.samples_per_s:.0f} samples/s" for each in (trained, evaluated) if each is not None][:1]
    return "  ".join(parts)


def _figure(figures: Mapping[str, Any]) -> str:
    """The one that says most of an assembled volume; "": there is none."""
    if math.isfinite(figures.get("accuracy", math.nan)):
        return f"{figures['accuracy']:.4f}"
    return f"mae {figures['mae']:.4g}" if "mae" in figures else ""


class EpochLines:
    """Logs a line an epoch; an evaluation completes it where the run `evaluates`, or the assembly of what was predicted
    where it `assembles`."""

    def __init__(self, last: int, evaluates: bool, assembles: bool = False):
        self.last, self.evaluates, self.assembles = last, evaluates, assembles
        self._trained: TrainedEpoch | None = None
        self._evaluated: EvaluatedEpoch | None = None

    def __call__(self, event: object) -> None:
        if isinstance(event, TrainedEpoch) and not event.batch:
            self._trained = event
            if not self.evaluates:
                self._log()
        elif isinstance(event, EvaluatedEpoch):
            self._evaluated = event
            if not self.assembles:
                self._log()
        elif isinstance(event, AssembledEpoch):
            self._log(event.figures)

    def _log(self, assembled: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        many = self.last > MOST_EPOCH_PHASES and (self._trained is None or self._trained.epoch != self.last)
        log.info(line_of(self._trained, self._evaluated, self.last, assembled), extra={OF_MANY: many})
        self._trained = self._evaluated = None


class Bar:
    """A progress bar an epoch: batches, loss, samples/s, time left; and one a phase over the blocks of a volume."""

    def __init__(self, last: int):
        self.last = last
        self._bar: RichProgress | None = None
        self._what = ""

    def __call__(self, event: object) -> None:
        if isinstance(event, Progress):
            said = f"loss {event.loss:.4g}  {event.samples_per_s:.0f} samples/s"
            self._show(f"epoch {event.epoch}/{self.last}", event.batch, event.batches, said)
        elif isinstance(event, Blocks):
            said = f"{event.mb_per_s:.3g} MB/s" if event.bytes else ""
            self._show(event.phase, event.done, event.total, said)
            if event.done == event.total:
                self.end()
        else:
            self.end()

    def _show(self, what: str, done: int, total: int, said: str) -> None:
        if what != self._what:
            self.end()
        if self._bar is None:
            from rich import progress as rich

            self._bar = rich.Progress(
                rich.TextColumn(what),
                rich.BarColumn(),
                rich.MofNCompleteColumn(),
                rich.TextColumn("{task.fields[said]}"),
                rich.TimeRemainingColumn(),
                transient=True,
            )
            self._what = what
            self._task = self._bar.add_task("", total=total, said=said)
            self._bar.start()
        self._bar.update(self._task, completed=done, said=said)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def shown(last: int) -> Iterator[None]:
    """While the context lasts, what the run says goes to the console: warnings to standard error."""
    usual, unusual = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    usual.addFilter(lambda record: record.levelno < logging.WARNING)
    unusual.setLevel(logging.WARNING)
    log.setLevel(logging.INFO)
    log.propagate = False
    bar = Bar(last)
    for handler in (usual, unusual):
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    try:
        with listening(bar) if sys.stdout.isatty() else nullcontext():
            yield
    finally:
        bar.end()
        for handler in (usual, unusual):
            log.removeHandler(handler)


def say_written(files: list[tuple[AnyPath, str]], seconds: float) -> None:
    print(f"done in {seconds:.1f} s" + ("; written:" if files else "; nothing was written: set outfile to keep logs"))
    here = Path.cwd()
    for file, note in files:
        path = Path(os.path.normpath(file)) if isinstance(file, Path) else None
        shown_as = path.relative_to(here) if path is not None and path.is_relative_to(here) else path or file
        print(f"  {shown_as}" + (f", {note}" if note else ""))
