"""Load the samples of a role: list them, read what has to be known of all of them, and decode them to be kept."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rml_core.data.prepared import Prepared, folder_of, is_whole, key_of, prepare
from rml_core.data.prepared_volumes import Found
from rml_core.data.section import Data
from rml_core.data.survey import Survey
from rml_core.engine.progress import Blocks
from tasks.cluster import mapper
from tasks.progress import publish


def cache_folder() -> Path:
    """Where things are kept for the next run; workers on other machines must see the same folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rml"


def prepared_samples() -> Path:
    return cache_folder() / "prepared"


@dataclass(frozen=True)
class Source:
    """The samples of a role and how they are to be kept; `scheduler` is the Dask cluster's address, if any. `held`:
    as `prepare` has it."""

    survey: Survey
    data: Data
    scheduler: str | None
    held: ExitStack | None = None

    @cached_property
    def key(self) -> str:
        """The identity of what loading gives: of the files, and of the section."""
        text = key_of(self.survey, self.data) + self.data.model_dump_json()
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def is_whole(self) -> bool:
        """What an earlier run left is still there, undamaged."""
        return is_whole(folder_of(self.survey, self.data, prepared_samples()))

    def listed_only(self) -> Source:
        """The same samples, read when they are due."""
        return replace(self, data=self.data.model_copy(update={"preload": False}))


def load(source: Source) -> Prepared:
    """Prepare `source`; nothing is done where an earlier run has left the same.

    Raises:
        RunFailed: files that do not decode, a full disk.
    """
    watch = _Watch(f"load {source.survey.role}") if source.survey.grids else None
    with mapper(source.scheduler, watch) as on_cluster:
        return prepare(source.survey, source.data, prepared_samples(), on_cluster, source.held)


class _Watch:
    """Publishes how far the reading of a volume is, a part at a time."""

    def __init__(self, phase: str) -> None:
        self._phase, self._began = phase, time.perf_counter()
        self._done = self._bytes = 0

    def __call__(self, found: Found, total: int) -> None:
        self._done, self._bytes = self._done % total + 1, self._bytes + found.nbytes
        publish(Blocks(self._phase, self._done, total, self._bytes, time.perf_counter() - self._began))
