"""What a person sees of a run: a progress bar an epoch on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.progress import listening

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


def line_of(trained: Any | None, evaluated: Any | None, last: int) -> str:
    """`epoch 3/12  loss 0.2718  test loss 0.3141  accuracy 0.9500  1234 samples/s`; either may be missing."""
    parts = []
    if trained is not None:
        parts += [f"epoch {trained.epoch}/{last}", f"loss {trained.loss:.4g}"]
    elif evaluated is not None:
        parts.append(f"evaluation of epoch {evaluated.epoch}")
    if evaluated is not None and math.isfinite(evaluated.loss):
        parts.append(f"test loss {evaluated.loss:.4g}")
    if evaluated is not None and math.isfinite(evaluated.accuracy):
        parts.append(f"accuracy {evaluated.accuracy:.4f}")
    parts += [f"{each.samples_per_s:.0f} samples/s" for each in (trained, evaluated) if each is not None][:1]
    return "  ".join(parts)


class Console:
    """Listens to a run's events and writes to standard output; `last` is the run's last epoch."""

    def __init__(self, last: int, evaluates: bool):
        self.last, self.evaluates = last, evaluates
        self._trained: Any = None
        self._bar: Bar | None = None
        self._task: Any = None

    def __call__(self, event: Any) -> None:
        kind = type(event).__name__
        if kind == "Progress":
            self._progress(event)
        elif kind == "TrainedEpoch" and not event.batch:
            self._end_bar()
            self._trained = event
            if not self.evaluates:
                self._line(None)
        elif kind == "TrainedEpoch":
            self._end_bar()
        elif kind == "EvaluatedEpoch":
            self._line(event)

    def _line(self, evaluated: Any | None) -> None:
        print(line_of(self._trained, evaluated, self.last), flush=True)
        self._trained = None

    def _progress(self, event: Any) -> None:
        if not sys.stdout.isatty():
            return
        if self._bar is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn(f"epoch {event.epoch}/{self.last}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.4g}  {task.fields[rate]:.0f} samples/s"),
                TimeRemainingColumn(),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=event.batches, loss=event.loss, rate=event.samples_per_s)
        self._bar.update(self._task, completed=event.batch, loss=event.loss, rate=event.samples_per_s)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


@contextmanager
def shown(last: int, evaluates: bool) -> Iterator[None]:
    """While the context lasts, the run's events and what it says go to the console."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("rml")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    log.propagate = False
    console = Console(last, evaluates)
    try:
        with listening(console):
            yield
    finally:
        console._end_bar()
        log.removeHandler(handler)


def say_written(files: list[Path], seconds: float) -> None:
    print(f"done in {seconds:.1f} s" + ("; written:" if files else "; nothing was written: set outfile to keep logs"))
    for path in files:
        print(f"  {os.path.relpath(path)}")
