"""Assembly in one process: regions are gathered in memory while predictions come, layer by layer.

A few stripes share the regions among them. Each is given all predictions, in their order, and takes its part of them:
nothing is locked, and however many there are, each voxel gets the same sums. Memory holds the regions of a layer.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Callable
from math import prod
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import torch

from rml_core.assembly.blend import Array, Batch, Blend, Piece
from rml_core.assembly.finishing import Finished, Finishing
from rml_core.assembly.regions import SINGLE, Index

# Runs a function somewhere in this process, beside who calls; gives something with a `result()`.
Submit = Callable[[Callable[[], None]], Any]

# More stripes than this only wait for each other's memory.
MOST_STRIPES = 4
# Predictions that wait for the stripes: of what the run may hold, and at most.
WAITING_SHARE, WAITING_MOST = 8, 1 << 26
# Regions of a layer beyond this share of it are held in a file.
RING_SHARE = 2


class _Item(NamedTuple):
    """`finished`: the layer that is whole with these pieces."""

    number: int
    pieces: list[Piece]
    finished: int | None
    waiting: _Waiting


class _Waiting:
    """Bytes that stripes have still to take."""

    def __init__(self, stripes: int, nbytes: int, room: _Room):
        self._stripes, self._nbytes, self._room = stripes, nbytes, room

    def taken(self) -> None:
        with self._room.changed:
            self._stripes -= 1
            if not self._stripes:
                self._room.waiting -= self._nbytes
                self._room.changed.notify_all()


class _Room:
    """How many bytes wait for the stripes, of `limit`; one batch always may."""

    def __init__(self, limit: int):
        self.limit, self.waiting = limit, 0
        self.changed = threading.Condition()

    def take(self, nbytes: int, stripes: int) -> _Waiting:
        with self.changed:
            self.changed.wait_for(lambda: not self.waiting or self.waiting + nbytes <= self.limit)
            self.waiting += nbytes
        return _Waiting(stripes, nbytes, self)


class Ring:
    """Takes the predictions of all slice sets, one set after the other.

    `memory`: bytes that it may hold. `path`: beside it there is room for a file, where that is too little.
    """

    def __init__(
        self, blends: tuple[Blend, ...], finishing: Finishing, submit: Submit, stripes: int, memory: int, path: Path
    ):
        self.blends = blends
        self._room = _Room(min(memory // WAITING_SHARE, WAITING_MOST))
        stripes = max(1, min(stripes, MOST_STRIPES))
        held = max(_held(blend, stripes) for blend in blends)
        sums = _Sums(
            max(blend.regions.largest for blend in blends), path.parent if held > memory // RING_SHARE else None
        )
        self._stripes = [_Stripe(turn, stripes, blends, finishing, sums) for turn in range(stripes)]
        # torch's own threads belong to the network; how many there are is remembered for threads that are yet to come.
        threads = torch.get_num_threads()
        self._running = [submit(stripe.run) for stripe in self._stripes]
        for stripe in self._stripes:
            stripe.begun.wait()
        torch.set_num_threads(threads)

    def add(self, number: int, start: int, batch: Batch) -> None:
        """Predictions of set `number`, those at the positions from `start` on, which must not change afterwards. Waits
        while too much is under way; raises what has gone wrong with earlier ones."""
        self._raise_failure()
        blend = self.blends[number]
        layer = blend.regions.slices_a_layer
        at, end = start, start + len(batch.numbers)
        while at < end:
            stop = min(end, (at // layer + 1) * layer)
            pieces = list(blend.pieces(batch.part(at - start, stop - start)))
            waiting = self._room.take(sum(piece.cores.nbytes for piece in pieces), len(self._stripes))
            item = _Item(number, pieces, at // layer if stop % layer == 0 else None, waiting)
            for stripe in self._stripes:
                stripe.inbox.put(item)
            at = stop

    def end(self, look: Callable[[], None]) -> list[tuple[int, Finished]]:
        """Wait until all is written: (set number, region), in an order that rests on the geometry alone. `look` is
        called now and then."""
        self._stop(look)
        self._raise_failure()
        return [
            (number, finished)
            for (number, _), finished in sorted(
                (each for stripe in self._stripes for each in stripe.done.items()), key=lambda each: each[0]
            )
        ]

    def finished(self) -> list[Finished]:
        """What is written until now."""
        return [each for stripe in self._stripes for each in list(stripe.done.values())]

    def discard(self) -> None:
        """Leave what has not been taken."""
        for stripe in self._stripes:
            stripe.stopped = True
        self._stop()

    def _stop(self, look: Callable[[], None] = lambda: None) -> None:
        for stripe in self._stripes:
            stripe.inbox.put(None)
        for running in self._running:
            running.result()
            look()
        self._running = []

    def _raise_failure(self) -> None:
        for stripe in self._stripes:
            if stripe.failure is not None:
                raise stripe.failure


class _Stripe:
    """Every `of`-th region, from `turn` on. `done`: (set number, region) of what is in the file."""

    def __init__(self, turn: int, of: int, blends: tuple[Blend, ...], finishing: Finishing, sums: _Sums):
        self.turn, self.of = turn, of
        self.blends, self.finishing = blends, finishing
        self.inbox: SimpleQueue[_Item | None] = SimpleQueue()
        self.done: dict[tuple[int, Index], Finished] = {}
        self.failure: BaseException | None = None
        self.begun, self.stopped = threading.Event(), False
        self._sums, self._held = sums, {}  # type: tuple[_Sums, dict[Index, Array]]
        self._scratch: Array = np.empty(0, np.float32)

    def run(self) -> None:
        """Take what comes, until there is nothing more to come."""
        # Asked first: a thread takes the usual number when it first needs one, whatever has been set for it.
        torch.get_num_threads()
        torch.set_num_threads(1)
        self.begun.set()
        while (item := self.inbox.get()) is not None:
            try:
                if not self.stopped:
                    self._take(item)
            except BaseException as error:
                self.failure, self.stopped = error, True
            finally:
                item.waiting.taken()
            del item
        self._held.clear()

    def _take(self, item: _Item) -> None:
        blend = self.blends[item.number]
        # Region by region: what a piece has touched, the next one finds near the processor.
        touching: dict[Index, list[Piece]] = {}
        for piece in item.pieces:
            if blend.weights is not None and self._scratch.size < piece.cores.size:
                self._scratch = np.empty(piece.cores.size, np.float32)
            for index in blend.regions.touched(piece.box):
                if sum(index) % self.of == self.turn:
                    touching.setdefault(index, []).append(piece)
        for index, pieces in touching.items():
            sums, at = self._region(blend, index), blend.regions.box(index)
            for piece in pieces:
                blend.add(sums, at, piece, self._scratch)
        if item.finished is not None:
            for index in blend.regions.finished(item.finished):
                if sum(index) % self.of == self.turn:
                    sums = self._region(blend, index)
                    at = blend.regions.box(index)
                    self.done[item.number, index] = self.finishing(item.number, blend, at, sums)
                    self._sums.give_back(self._held.pop(index))

    def _region(self, blend: Blend, index: Index) -> Array:
        """The sums of a region, (channels, *region)."""
        shape = (
            blend.regions.channels,
            *(part.stop - part.start for part in blend.regions.box(index)),
        )
        if index not in self._held:
            self._held[index] = self._sums.take()
            region = self._held[index][: prod(shape)].reshape(shape)
            blend.start(region)
            return region
        return self._held[index][: prod(shape)].reshape(shape)


class _Sums:
    """Vectors of `size` float32, used again and again: what is new has to be mapped page by page. `folder`: they are
    held in a file there."""

    def __init__(self, size: int, folder: Path | None):
        self._size, self._folder = size, folder
        self._free: list[Array] = []

    def take(self) -> Array:
        try:
            return self._free.pop()
        except IndexError:
            return np.empty(self._size, np.float32) if self._folder is None else self._in_file()

    def give_back(self, vector: Array) -> None:
        self._free.append(vector)

    def _in_file(self) -> Array:
        with tempfile.TemporaryFile(dir=self._folder, prefix=".rml-") as file:
            os.posix_fallocate(file.fileno(), 0, self._size * SINGLE)
            return np.frombuffer(mmap.mmap(file.fileno(), self._size * SINGLE), np.float32)


def _held(blend: Blend, stripes: int) -> int:
    """Bytes of the regions that are under way at once: those of a layer, and one that each stripe is ahead."""
    regions = blend.regions
    along = regions.axis
    rows = -(-regions.grid.axes[along].size // regions.tile[along]) + 1 + stripes
    beside = prod(count for axis, count in enumerate(regions.counts) if axis != along)
    return min(rows, regions.counts[along]) * beside * regions.largest * SINGLE
