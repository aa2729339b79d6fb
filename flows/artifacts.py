"""What the server shows of a run while it works: how far its long phases are, and what its slices are."""

from __future__ import annotations

import os
import time
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from flows.slice_table import SliceTable
from rml_core.engine.progress import Blocks

# Seconds between two updates of an artifact, each of which costs ten milliseconds.
BETWEEN = 2.0


class Artifacts:
    """Listens to a flow run's events; it is called in the task run whose phase has published the event."""

    def __init__(self) -> None:
        self._phase = ""
        self._artifact: UUID | None = None
        self._updated = 0.0

    def __call__(self, event: object) -> None:
        if isinstance(event, Blocks):
            self._show(event)
        elif isinstance(event, SliceTable):
            create_table_artifact(table=list(event.rows), key="slice-sets", description="what the slicers make")

    def _show(self, blocks: Blocks) -> None:
        now, done = time.monotonic(), blocks.done == blocks.total
        if blocks.phase != self._phase:
            self._phase, self._artifact, self._updated = blocks.phase, None, now - blocks.seconds
        if not done and now - self._updated < BETWEEN:
            return
        self._updated = now
        shown: dict[str, Any] = {"progress": 100 * blocks.done / blocks.total, "description": described(blocks)}
        if self._artifact is None:
            self._artifact = cast(UUID, create_progress_artifact(**shown))
        else:
            update_progress_artifact(self._artifact, **shown)


def described(blocks: Blocks) -> str:
    """`evaluate epoch 3: 120 of 4455 blocks, 85 MB/s, 310 MB held`"""
    parts = [f"{blocks.phase}: {blocks.done} of {blocks.total} blocks"]
    if blocks.bytes:
        parts.append(f"{blocks.mb_per_s:.3g} MB/s")
    return ", ".join([*parts, f"{held_bytes() / 1e6:.0f} MB held"])


def held_bytes() -> int:
    """Of memory, by this process, now; mapped files included as far as they are there."""
    with open("/proc/self/statm") as sizes:
        return int(sizes.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
