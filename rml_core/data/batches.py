"""Batches in the order of an epoch, made ahead of the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from rml_core.data.handles import closing
from rml_core.data.source import Room, Source

# Batches under way ahead of the consumer, and what they may take in bytes; one always is.
AHEAD, AHEAD_BYTES = 3, 1 << 27
# So many samples at most a thread takes at once.
CHUNK = 16

_Begun = tuple[np.ndarray, Room | None, list[Future[Any]]]


class Batch(NamedTuple):
    """Shapes and types of `batches`. `kept` (N, *spatial), bool: where values of targets count; None: everywhere."""

    inputs: np.ndarray
    targets: np.ndarray | None
    indices: np.ndarray
    kept: np.ndarray | None = None


def batches(
    source: Source,
    *,
    batch_size: int,
    epoch: int,
    seed: int,
    training: bool,
    shuffle: bool,
    threads: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    ahead_bytes: int = AHEAD_BYTES,
) -> Generator[Batch, None, None]:
    """The batches of `epoch` (from 1), from the batch `start` (from 0) on.

    inputs: float32 (N, C, ...), 2D samples with their channels last in memory. targets: int64 (N,) labels, int64
    (N, ...) masks with `IGNORED`, float32 (N, C, ...) values (in memory as the inputs), or None. indices: int64 (N,).

    `batch_size` counts over all ranks, each of which gets its even part; the last batch may be smaller, and a rank's
    part of it empty. `shuffle` acts in training only, as random transforms do. What is in a batch depends on
    `seed`, `epoch` and the samples' numbers alone. `threads` (0: none) work ahead where there is work to do, with
    batches of `ahead_bytes` at most, or one; they end with the iterator. Raises `RunFailed` naming the file.
    """
    parts = (
        part if world_size == 1 else np.array_split(part, world_size)[rank]
        for part in source.parts(batch_size, seed, epoch, training, shuffle, start)
    )
    if threads == 0 or source.is_quick(training, batch_size):
        with closing():
            for indices in parts:
                room = source.room(indices)
                if room is not None:
                    source.fill(indices, room, seed, epoch, training)
                else:
                    room = source.alone(indices, seed, epoch, training)
                yield _batch(room, indices)
    else:
        pool = ThreadPoolExecutor(threads, "rml-loader", _alone_in_its_thread)

        def begin(indices: np.ndarray) -> _Begun:
            room = source.room(indices)
            if room is None:
                return indices, None, [pool.submit(source.alone, indices, seed, epoch, training)]
            step = len(indices) if room.shares else max(1, min(CHUNK, -(-len(indices) // threads)))
            futures: list[Future[Any]] = []
            for at in range(0, len(indices), step):
                rows = slice(at, at + step)
                futures.append(pool.submit(source.fill, indices[rows], room.rows(rows), seed, epoch, training))
            return indices, room, futures

        begun: deque[_Begun] = deque()

        def begin_some() -> None:
            while len(begun) < AHEAD:
                held = [room.nbytes for _, room, _ in begun if room is not None]
                if held and sum(held) + held[-1] > ahead_bytes:
                    return
                indices = next(parts, None)
                if indices is None:
                    return
                begun.append(begin(indices))

        try:
            begin_some()
            while begun:
                indices, room, futures = begun.popleft()
                results = [future.result() for future in futures]
                begin_some()
                yield _batch(room if room is not None else results[0], indices)
                # What the consumer has let go of is free before the next one is waited for.
                del room, results, futures
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    source.passed()


def _batch(room: Room, indices: np.ndarray) -> Batch:
    inputs, targets, kept = room
    if targets is not None and targets.dtype == np.float32:
        targets = _channels_first(targets)
    return Batch(_channels_first(inputs), targets, indices, kept)


def _channels_first(arrays: np.ndarray) -> np.ndarray:
    """Held samples (N, ...) as (N, C, ...)."""
    return arrays.transpose(0, 3, 1, 2) if arrays.ndim == 4 else arrays


def _alone_in_its_thread() -> None:
    """OpenCV's own threads would compete with ours and with the training step's."""
    import cv2

    cv2.setNumThreads(0)
