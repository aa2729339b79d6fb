"""Save what a run needs to go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks import ranks

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath


@dataclass(frozen=True)
class Saved(ranks.Stage):
    """A checkpoint that lies whole under `path`."""

    path: AnyPath


def checkpoint(stage: ranks.Stage, path: AnyPath) -> Saved:
    """Write the state of the ranks to `path`."""
    ranks.save(stage.ranks, path)
    return Saved(stage.ranks, path)


def checkpoint_epoch(stage: ranks.Stage, epoch: int, folder: AnyPath, run_id: str, keep: int | None) -> Saved:
    """Write the checkpoint of a complete epoch; an interrupted one, and this run's epochs beyond `keep`, go."""
    from rml_core.checkpoints import native

    saved = checkpoint(stage, native.epoch_path(folder, epoch))
    native.remove_interrupted(folder)
    if keep is not None:
        native.prune(folder, run_id, epoch, keep)
    return saved
