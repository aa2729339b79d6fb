"""Assembly by workers in other processes, on other hosts too: predictions go to files that all of them see.

A file holds a layer of slices. Once a region's layers are there, a task reads its slices, adds them in their order,
and writes the result to its place: it may run anywhere, and again, and leaves the same bytes. A layer's file goes with
the last region that needs it. Nothing but places passes between processes.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from rml_core.assembly.blend import Array, Batch, Blend, Piece
from rml_core.assembly.finishing import Finished, Finishing
from rml_core.assembly.regions import SINGLE, Index, Regions
from rml_core.config.unfinished import unfinished

# Predictions that wait to be written to the spool: of what the run may hold, and at most.
WAITING_SHARE, WAITING_MOST = 8, 1 << 28
# So often who waits for workers looks whether there are any.
LOOK_S = 0.5


class Workers(Protocol):
    """A cluster. What comes back has `result()`, `cancel()` and `add_done_callback(function)`, as a Future has."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any: ...

    def check(self) -> None:
        """Raises `RunFailed` where nobody is there to do what was submitted."""


@dataclass(frozen=True)
class Job:
    """What tasks have in common: small, whatever the size of the volume."""

    finishing: Finishing
    regions: tuple[Regions, ...]
    blend: str
    folder: str

    def blending(self, number: int) -> Blend:
        return _blend(self.regions[number], self.blend)

    def file(self, number: int, layer: int) -> Path:
        return Path(self.folder, f"{number}-{layer}")


@lru_cache(maxsize=16)
def _blend(regions: Regions, name: str) -> Blend:
    """Its weights are made once a process."""
    return Blend(regions, name)


def assemble(job: Job, number: int, index: Index) -> Finished:
    """The region `index` of slice set `number`, from the spool to its place. Raises `OSError`: a full disk."""
    # A task has one thread of the worker's.
    torch.set_num_threads(1)
    blend = job.blending(number)
    regions, grid = blend.regions, blend.grid
    at = regions.box(index)
    sums = np.empty((regions.channels, *(part.stop - part.start for part in at)), np.float32)
    blend.start(sums)
    slot = _slot(blend)
    scratch = np.empty(slot if blend.weights is not None else 0, np.float32)
    files: dict[int, Array] = {}
    for place in regions.slices(index):
        layer = place[regions.axis]
        if layer not in files:
            # Layers come in order. Nothing is changed; torch takes no array that cannot be.
            files = {layer: np.memmap(job.file(number, layer), np.float32, "c")}
        location = grid.at(place)
        shape = (regions.channels, *location.shape)
        start = regions.within_layer(place) * slot
        core = files[layer][start : start + prod(shape)].reshape(1, *shape)
        blend.add(sums, at, Piece(blend.along, location.box, 1, core), scratch)
    return job.finishing(number, blend, at, sums)


class Spool:
    """Takes the predictions of all slice sets, one set after the other. `memory`: bytes of the spool that may lie there
    at once, as long as workers have something to do; `path`: of the file to be, beside which there is room."""

    def __init__(self, blends: tuple[Blend, ...], finishing: Finishing, workers: Workers, memory: int, path: Path):
        self.blends, self._workers, self._limit = blends, workers, memory
        self._folder = unfinished(path, ".spool")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        light = replace(finishing.assembly, said=(), slicers=())
        regions = tuple(blend.regions for blend in blends)
        self._job = Job(replace(finishing, assembly=light), regions, blends[0].name, str(self._folder))
        self._writer = ThreadPoolExecutor(1, "rml-spool")
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._waiting_limit = min(memory // WAITING_SHARE, WAITING_MOST)
        # What follows is changed by the client's thread, too.
        self._changed = threading.Condition()
        self._under_way: dict[tuple[int, Index], Any] = {}
        self._done: dict[tuple[int, Index], Finished] = {}
        self._failure: BaseException | None = None
        self._spooled = 0
        # Of each layer that is there: its bytes, and how many regions have still to read it.
        self._layers: dict[tuple[int, int], int] = {}
        self._needed: Counter[tuple[int, int]] = Counter()

    def add(self, number: int, start: int, batch: Batch) -> None:
        """As `Ring.add`."""
        nbytes = batch.outputs.nbytes
        while self._waiting and sum(size for size, _ in self._waiting) + nbytes > self._waiting_limit:
            self._waiting.popleft()[1].result()
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()[1].result()
        self._waiting.append((nbytes, self._writer.submit(self._put, number, start, batch)))

    def end(self, look: Callable[[], None]) -> list[tuple[int, Finished]]:
        """As `Ring.end`."""
        while self._waiting:
            self._waiting.popleft()[1].result()
        self._wait(lambda: not self._under_way, look)
        self._writer.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)
        return [(number, finished) for (number, _), finished in sorted(self._done.items(), key=lambda each: each[0])]

    def finished(self) -> list[Finished]:
        """What is written until now."""
        with self._changed:
            return list(self._done.values())

    def discard(self) -> None:
        """Leave nothing; what workers are about they finish."""
        with self._changed:
            self._failure = self._failure or InterruptedError("discarded")
            left = list(self._under_way.values())
            self._changed.notify_all()
        try:
            for task in left:
                # Of a cluster that is gone nothing can be called back, and why it all ends is said already.
                with suppress(Exception):
                    task.cancel()
            self._writer.shutdown(cancel_futures=True)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _put(self, number: int, start: int, batch: Batch) -> None:
        """Write predictions to the files of their layers; whenever one is whole, its tasks can begin."""
        blend = self.blends[number]
        regions = blend.regions
        at, end, a_layer, slot = start, start + len(batch.numbers), regions.slices_a_layer, _slot(blend)
        while at < end:
            layer = at // a_layer
            stop = min(end, (layer + 1) * a_layer)
            size = slot * SINGLE * a_layer
            if (number, layer) not in self._layers:
                # Without room, but with tasks that make some, it is waited for.
                room = self._limit - size
                self._wait(lambda room=room: self._spooled <= room or not self._under_way)  # type: ignore[misc]
                with self._changed:
                    self._layers[number, layer] = size
                    self._spooled += size
                self._needed[number, layer] = regions.readers(layer)
            part = batch.part(at - start, stop - start)
            descriptor = os.open(self._job.file(number, layer), os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                for which, row in zip(part.numbers.tolist(), part.rows.tolist(), strict=True):
                    location = blend.grid.location(which)
                    core = np.ascontiguousarray(blend.core(batch.outputs[row], location.box))
                    _write(descriptor, core, regions.within_layer(location.place) * slot * SINGLE)
            finally:
                os.close(descriptor)
            if stop % a_layer == 0:
                for index in regions.finished(layer):
                    self._begin(number, index)
            at = stop

    def _begin(self, number: int, index: Index) -> None:
        task = self._workers.submit(assemble, self._job, number, index)
        with self._changed:
            self._under_way[number, index] = task
        task.add_done_callback(lambda done: self._ended(number, index, done))

    def _ended(self, number: int, index: Index, task: Any) -> None:
        regions = self.blends[number].regions
        try:
            finished, failure = task.result(), None
        except BaseException as error:
            finished, failure = None, error
        with self._changed:
            self._under_way.pop((number, index), None)
            if finished is None:
                self._failure = self._failure or failure
            else:
                self._done[number, index] = finished
            for layer in regions.layers_of(index):
                self._needed[number, layer] -= 1
                if not self._needed[number, layer]:
                    self._spooled -= self._layers.get((number, layer), 0)
                    self._job.file(number, layer).unlink(missing_ok=True)
            self._changed.notify_all()

    def _wait(self, until: Callable[[], bool], look: Callable[[], None] = lambda: None) -> None:
        """Wait for the tasks under way; raises what has gone wrong with one."""
        while True:
            with self._changed:
                there = self._changed.wait_for(lambda: self._failure is not None or until(), LOOK_S)
                if self._failure is not None:
                    raise self._failure
            if there:
                return
            self._workers.check()
            look()


def _slot(blend: Blend) -> int:
    """The numbers of a slice that is not cut short."""
    return blend.regions.channels * prod(axis.size for axis in blend.grid.axes)


def _write(descriptor: int, array: Array, offset: int) -> None:
    data = memoryview(array.reshape(-1).view(np.uint8).data)
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
