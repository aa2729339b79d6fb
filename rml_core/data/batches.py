"""Batches in the order of an epoch, made ahead of the training step."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from rml_core.config.seed import generator
from rml_core.data.handles import closing
from rml_core.data.samples import Samples

# Batches under way ahead of the consumer.
AHEAD = 3
# Where only arithmetic is left and a batch has fewer numbers, handing it to a thread costs more than making it.
INLINE = 1 << 19
# So many samples at most a thread takes at once.
CHUNK = 16

_Arrays = tuple[np.ndarray, np.ndarray | None]
_Begun = tuple[np.ndarray, _Arrays | None, list[Future[Any]]]


class Batch(NamedTuple):
    """Shapes and types of `batches`. `kept` (N, *spatial), bool: where values of targets count; None: everywhere."""

    inputs: np.ndarray
    targets: np.ndarray | None
    indices: np.ndarray
    kept: np.ndarray | None = None


def order(count: int, epoch: int, seed: int, shuffle: bool) -> np.ndarray:
    """The samples of `epoch` in the order of training, int64 (count,)."""
    return generator(seed, "order", epoch).permutation(count) if shuffle else np.arange(count)


def batches(
    samples: Samples,
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
) -> Generator[Batch, None, None]:
    """The batches of `epoch` (from 1), from the batch `start` (from 0) on.

    inputs: float32 (N, C, ...), 2D samples with their channels last in memory. targets: int64 (N,) labels, int64
    (N, ...) masks with `IGNORED`, float32 (N, C, ...) values (in memory as the inputs), or None. indices: int64 (N,).

    `batch_size` counts over all ranks, each of which gets its even part; the last batch may be smaller, and a rank's
    part of it empty. `shuffle` acts in training only, as random transforms do. What is in a batch depends on
    `seed`, `epoch` and the samples' numbers alone. `threads` (0: none) work ahead where there is work to do; they end
    with the iterator. Raises `RunFailed` naming the file.
    """
    sequence = order(samples.count, epoch, seed, shuffle and training)
    parts = (
        part if world_size == 1 else np.array_split(part, world_size)[rank]
        for part in (sequence[at : at + batch_size] for at in range(start * batch_size, len(sequence), batch_size))
    )

    def fill(indices: np.ndarray, inputs: np.ndarray, targets: np.ndarray | None) -> None:
        samples.fill(indices, inputs, targets, seed, epoch, training)

    small = samples.gathers(training) and batch_size * samples.floats <= INLINE
    if threads == 0 or small:
        with closing():
            for indices in parts:
                if samples.alike:
                    inputs, targets = samples.new_batch(len(indices))
                    fill(indices, inputs, targets)
                else:
                    inputs, targets = samples.alone(indices, seed, epoch, training)
                yield _batch(inputs, targets, indices)
        return

    pool = ThreadPoolExecutor(threads, "rml-loader", _alone_in_its_thread)

    def begin(indices: np.ndarray) -> _Begun:
        if not samples.alike:
            return indices, None, [pool.submit(samples.alone, indices, seed, epoch, training)]
        inputs, targets = room = samples.new_batch(len(indices))
        step = max(1, min(CHUNK, -(-len(indices) // threads)))
        futures: list[Future[Any]] = []
        for at in range(0, len(indices), step):
            rows = slice(at, at + step)
            futures.append(pool.submit(fill, indices[rows], inputs[rows], None if targets is None else targets[rows]))
        return indices, room, futures

    try:
        begun = deque(begin(indices) for indices in itertools.islice(parts, AHEAD))
        while begun:
            indices, room, futures = begun.popleft()
            results = [future.result() for future in futures]
            begun.extend(begin(indices) for indices in itertools.islice(parts, 1))
            inputs, targets = room if room is not None else results[0]
            yield _batch(inputs, targets, indices)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batch(inputs: np.ndarray, targets: np.ndarray | None, indices: np.ndarray) -> Batch:
    if targets is not None and targets.dtype == np.float32:
        targets = _channels_first(targets)
    return Batch(_channels_first(inputs), targets, indices)


def _channels_first(arrays: np.ndarray) -> np.ndarray:
    """Held samples (N, ...) as (N, C, ...)."""
    return arrays.transpose(0, 3, 1, 2) if arrays.ndim == 4 else arrays


def _alone_in_its_thread() -> None:
    """OpenCV's own threads would compete with ours and with the training step's."""
    import cv2

    cv2.setNumThreads(0)
