"""Save what a run needs to go on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks import ranks


@dataclass(frozen=True)
class Saved(ranks.Stage):
    """A checkpoint that lies whole under `path`."""

    path: Path


def checkpoint(stage: ranks.Stage, path: Path) -> Saved:
    """Write the state of the ranks to `path`."""
    ranks.save(stage.ranks, path)
    return Saved(stage.ranks, path)


def checkpoint_epoch(stage: ranks.Stage, epoch: int, folder: Path, run_id: str, keep: int | None) -> Saved:
    """Write the checkpoint of a complete epoch; an interrupted one, and this run's epochs beyond `keep`, go."""
    from rml_core.checkpoints import native

    saved = checkpoint(stage, native.epoch_path(folder, epoch))
    native.interrupted_path(folder).unlink(missing_ok=True)
    if keep is not None:
        native.prune(folder, run_id, epoch, keep)
    return saved
