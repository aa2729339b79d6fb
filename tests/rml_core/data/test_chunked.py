"""Chunks are decoded once while they are kept, whatever threads want of them, and only so much is kept."""

from __future__ import annotations

import threading
import tracemalloc
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rml_core.config.problem import RunFailed
from rml_core.data import chunked
from rml_core.data.chunked import ChunkCache, Chunked, Taken, runs, whole_chunks

SHAPE, CHUNK = (2, 20, 24, 16), (1, 8, 8, 8)
ARRAY = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
EVERY = prod(-(-size // chunk) for size, chunk in zip(SHAPE, CHUNK, strict=True))


class Storage:
    """Counts what is asked of it."""

    def __init__(self, **keys: Any) -> None:
        self.reads: Counter[tuple[int, ...]] = Counter()
        self._lock = threading.Lock()
        self.taken = Taken()
        self.chunked = Chunked(SHAPE, ARRAY.dtype, CHUNK, self.fetch, self.taken, **keys)

    def fetch(self, box: tuple[slice, ...]) -> np.ndarray:
        with self._lock:
            self.reads[tuple(part.start for part in box)] += 1
        chunk = ARRAY[box].copy()
        self.taken.add(chunk.nbytes)
        return chunk


def boxes(count: int, seed: int) -> list[tuple[slice, ...]]:
    rng = np.random.default_rng(seed)
    ends = [np.sort(rng.integers(0, size + 1, (count, 2)), axis=1) for size in SHAPE]
    return [tuple(slice(int(low), int(high)) for low, high in each) for each in zip(*ends, strict=True)]


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("cache_bytes", [0, 5 * 2048, ARRAY.nbytes])
def test_threads_get_what_is_there(cache_bytes, parallel):
    storage = Storage(cache_bytes=cache_bytes, parallel=parallel)
    wanted = boxes(60, 1)
    with ThreadPoolExecutor(16) as pool:
        for box, found in zip(wanted, pool.map(storage.chunked.read, wanted), strict=True):
            np.testing.assert_array_equal(found, ARRAY[box])
    storage.chunked.close()
    if cache_bytes == ARRAY.nbytes:
        assert set(storage.reads.values()) == {1}
        assert storage.chunked.bytes_read <= ARRAY.nbytes


def test_a_chunk_that_another_thread_reads_is_waited_for(monkeypatch):
    """Even where nothing is kept: a read that is under way serves all who ask meanwhile."""
    asked, waiting, done = threading.Event(), threading.Semaphore(0), threading.Event()
    reads = []

    class Watched(Future):
        def result(self, timeout=None):
            waiting.release()
            return super().result(timeout)

    def slowly(index):
        reads.append(index)
        asked.set()
        assert done.wait(10)
        return np.array(index)

    monkeypatch.setattr(chunked, "Future", Watched)
    cache = ChunkCache(0)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(cache.get, (1,), slowly)
        assert asked.wait(10)
        others = [pool.submit(cache.get, (1,), slowly) for _ in range(4)]
        for _ in others:
            assert waiting.acquire(timeout=10)
        # Another chunk is not kept waiting.
        assert cache.get((2,), np.array).tolist() == [2]
        done.set()
        assert all(each.result() is first.result() for each in others)
    assert reads == [(1,)]


def test_what_goes_wrong_is_said_to_all_and_tried_again():
    asked, done = threading.Event(), threading.Event()

    def fails(index):
        asked.set()
        assert done.wait(10)
        raise RunFailed("damaged")

    cache = ChunkCache(100)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(cache.get, (1,), fails) for _ in range(2)]
        assert asked.wait(10)
        done.set()
        for future in futures:
            with pytest.raises(RunFailed, match=r"^damaged$"):
                future.result()
    assert cache.get((1,), np.array).tolist() == [1]


def test_the_chunks_unused_for_longest_go():
    cache, reads = ChunkCache(3 * 8), []

    def read(index):
        reads.append(index[0])
        return np.zeros(1)

    for number in (0, 1, 2, 0, 3, 0, 2, 1, 0):
        cache.get((number,), read)
    assert reads == [0, 1, 2, 3, 1]


def test_a_chunk_larger_than_the_cache_pushes_nothing_out():
    cache, reads = ChunkCache(16), []

    def read(index):
        reads.append(index[0])
        return np.zeros(index[0])

    for number in (1, 3, 1, 3):
        cache.get((number,), read)
    assert reads == [1, 3, 3]


def test_memory_is_that_of_the_box_and_the_cache():
    """A box through a hundred chunks holds no more of them than are kept, and those that are being copied."""
    chunk, count = 1 << 18, 100
    storage = Chunked(
        (count * chunk,), np.dtype(np.uint8), (chunk,), lambda box: np.ones(chunk, np.uint8), Taken(), 4 * chunk
    )
    tracemalloc.start()
    try:
        found = storage.read((slice(0, count * chunk),))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.all()
    assert most < found.nbytes + 7 * chunk


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    limit=st.integers(1, 5000),
    fortran=st.booleans(),
)
def test_runs_follow_each_other_in_the_file(shape, itemsize, limit, fortran):
    block = runs(shape, itemsize, limit, fortran)
    assert prod(block) * itemsize <= max(limit, itemsize)
    order = "F" if fortran else "C"
    places = np.arange(prod(shape)).reshape(shape, order=order)[tuple(map(slice, block))].ravel(order=order)
    assert places.tolist() == list(range(prod(block)))


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=4), least=st.integers(1, 9000)
)
def test_whole_chunks(sizes, least):
    shape, chunks = zip(*sizes, strict=True)
    grown = whole_chunks(chunks, shape, 4, least)
    assert all(size % chunk == 0 for size, chunk in zip(grown, chunks, strict=True))
    assert all(size < length + chunk for size, length, chunk in zip(grown, shape, chunks, strict=True))
    assert prod(grown) * 4 <= max(least, prod(chunks) * 4)
