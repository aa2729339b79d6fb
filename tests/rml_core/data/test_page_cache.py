"""What is asked for of a file: the blocks that a box lies in, and no others, and only where they are not in memory."""

from __future__ import annotations

import errno
import os
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.data import page_cache
from rml_core.data.page_cache import PageCache, runs_of

BASE, BLOCK = 128, 64


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "a.bin"
    path.write_bytes(bytes(BASE + 100_000))
    return str(path)


def asked_for(file, shape, box, cached):
    """(bytes of the file that were asked for, bytes of the box), from `BASE` on."""
    asked: set[int] = set()
    places = np.arange(BASE, BASE + prod(shape)).reshape(shape)
    array = np.zeros(shape, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_cache, "READ_AHEAD", BLOCK)
        patch.setattr(PageCache, "_holds", lambda self, at: cached)
        cache = PageCache(file, BASE)
        patch.setattr(os, "posix_fadvise", lambda _, at, size, __: asked.update(range(at, at + size)))
        cache.want(int(places[box].flat[0]), array[box])
    return asked, set(places[box].ravel().tolist())


@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(*[st.integers(1, 40)] * 3), data=st.data())
def test_blocks_of_the_box_and_what_is_less_than_one_between(file, shape, data):
    starts = [data.draw(st.integers(0, size - 1)) for size in shape]
    stops = [data.draw(st.integers(start + 1, size)) for start, size in zip(starts, shape, strict=True)]
    asked, needed = asked_for(file, shape, tuple(map(slice, starts, stops)), cached=False)
    assert needed <= asked
    blocks = {(at - BASE) // BLOCK for at in needed}
    near = {block + more for block in blocks for more in (-1, 0, 1)}
    assert {(at - BASE) // BLOCK for at in asked} <= near
    assert {(at - BASE) % BLOCK for at in asked} == set(range(BLOCK))


def test_nothing_is_asked_for_that_is_there(file):
    assert asked_for(file, (4, 5), (slice(0, 2), slice(0, 2)), cached=True)[0] == set()


def test_long_runs_and_many_are_left_to_the_system(file, monkeypatch):
    monkeypatch.setattr(page_cache, "LARGE", 1000)
    monkeypatch.setattr(page_cache, "MOST_RUNS", 3)
    assert asked_for(file, (1, 1001), (slice(0, 1), slice(0, 1001)), cached=False)[0] == set()
    assert asked_for(file, (4, 500), (slice(0, 4), slice(0, 1)), cached=False)[0] == set()
    assert len(asked_for(file, (3, 640), (slice(0, 3), slice(0, 1)), cached=False)[0]) == 3 * BLOCK


def test_pages_that_were_just_written_are_in_memory(file):
    cache = PageCache(file, BASE)
    assert cache._holds(BASE)
    assert cache.size() == BASE + 100_000


def test_where_much_was_there_little_is_looked_at(file):
    cache = PageCache(file, BASE)
    looked = []
    for _ in range(10 * page_cache.TRUST):
        if cache.looks():
            looked.append(1)
            cache.want(BASE, np.zeros(4, np.uint8))
    assert len(looked) == page_cache.TRUST + 9


def test_a_system_that_does_not_say_is_not_asked(file, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    cache = PageCache(file, BASE)
    monkeypatch.setattr(os, "preadv", unsupported)
    cache.want(BASE, np.zeros(4, np.uint8))
    assert not cache.looks()


def test_the_file_is_closed_with_it(file):
    descriptor = PageCache(file, BASE)._file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_runs():
    array = np.zeros((4, 8, 16), "f4")
    assert runs_of(array, 0) == (array.nbytes, [])
    assert runs_of(array[:, :2], 0) == (128, [(512, 4)])
    assert runs_of(array[:, :, :3], 0) == (12, [(64, 8), (512, 4)])
    assert runs_of(array[:, :, :3], 52) == (4 * 512 - 52, [])
    assert runs_of(np.asfortranarray(array)[:2], 0) == (8, [(16, 8), (128, 16)])
