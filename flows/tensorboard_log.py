"""What TensorBoard shows of a run: figures a batch and figures an epoch, as they come.

Below the folder, `batches` has the training loss and the gradient norm (steps: batches since training began), and
`epochs` has what the run's history has (steps: epochs). Two folders, because a resumed run takes back the steps that
its checkpoint does not know of, and TensorBoard does so for all figures of a folder.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flows.places import OF_BATCHES, OF_EPOCHS
from rml_core.config import roots
from rml_core.engine.progress import Progress
from tasks import ranks
from tasks.evaluate import EvaluatedEpoch
from tasks.progress import listening, log
from tasks.train_epoch import TrainedEpoch

FILES = "events.out.tfevents.*"
# Where figures stand together with others, TensorBoard shows them in one section.
TAGS = {"train_loss": "loss/train", "test_loss": "loss/test"}
NOT_SHOWN = ("epoch", "train_seconds")


@contextmanager
def written(folder: Path, epoch: int, batch: int, batches: int, evaluates: bool) -> Iterator[None]:
    """Within the context a run's figures are written. It stands after `batch` of `epoch` (batch 0: at its end; epoch 0:
    it is new, and replaces what an earlier one has left); an epoch has `batches`."""
    from torch.utils.tensorboard import SummaryWriter

    def writer(name: str, behind: int) -> Any:
        place = Path(roots.check(str(folder / name)))
        if epoch == 0:
            for left in place.glob(FILES):
                left.unlink()
            return SummaryWriter(str(place))
        _wait_for_a_later_name(place)
        return SummaryWriter(str(place), purge_step=behind)

    # An epoch that is complete and evaluated is evaluated again: its row is written anew.
    done = epoch if not evaluates and not batch else epoch - 1
    trained = (epoch - 1) * batches + batch if batch else epoch * batches
    try:
        figures = _Figures(writer(OF_EPOCHS, done + 1), writer(OF_BATCHES, trained + 1), evaluates)
    except OSError as error:
        log.warning(f"{folder}: {error.strerror or error}: nothing is written for TensorBoard")
        yield
        return
    try:
        with listening(figures):
            yield
    finally:
        figures.close()


def _wait_for_a_later_name(place: Path) -> None:
    """TensorBoard reads a folder's files in the order of their names, which begin with the second they were begun in:
    a run that resumes within the same second may be read before what it goes on from."""
    now = time.time()
    if any(each.name.removeprefix(FILES.rstrip("*")).startswith(f"{int(now):010d}.") for each in place.glob(FILES)):
        time.sleep(int(now) + 1 - now)


class _Figures:
    """Listens. A disk that is full ends it, and not the run: the figures are in the logs and in the checkpoints."""

    def __init__(self, epochs: Any, batches: Any, evaluates: bool):
        self._epochs, self._batches, self._evaluates = epochs, batches, evaluates
        self._failed = False

    def __call__(self, event: object) -> None:
        if self._failed:
            return
        try:
            if isinstance(event, Progress):
                self._progress(event)
            elif isinstance(event, TrainedEpoch):
                self._batches.flush()
                if not event.batch and not self._evaluates:
                    self._row(event, event.epoch)
            elif isinstance(event, EvaluatedEpoch):
                self._row(event, event.epoch)
        except OSError as error:
            self._failed = True
            log.warning(f"{error.filename or 'TensorBoard'}: {error.strerror or error}: no more is written for it")

    def _progress(self, progress: Progress) -> None:
        before = (progress.epoch - 1) * progress.batches
        for batch, loss, norm in progress.figures:
            self._batches.add_scalar("loss", loss, before + batch)
            self._batches.add_scalar("grad_norm", norm, before + batch)

    def _row(self, stage: ranks.Stage, epoch: int) -> None:
        row = next(row for row in reversed(ranks.history(stage.ranks)) if row["epoch"] == epoch)
        for key, value in {**row, **ranks.measured(stage.ranks)}.items():
            # nan: there is no such figure.
            if key not in NOT_SHOWN and isinstance(value, int | float) and value == value:
                self._epochs.add_scalar(TAGS.get(key, key), value, epoch)
        self._epochs.flush()

    def close(self) -> None:
        for writer in (self._epochs, self._batches):
            try:
                writer.close()
            except OSError as error:
                log.warning(f"{error.filename or 'TensorBoard'}: {error.strerror or error}")
