"""The order of slices: each once, all over the volume, together what shares its storage."""

from __future__ import annotations

from itertools import islice
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rml_core.data import slice_order
from rml_core.data.slice_order import Permutation, layout_of, mixed, order_of
from rml_core.slicers.grid import Axis, SliceGrid

ENOUGH = 1 << 50


@st.composite
def grids(draw):
    axes = tuple(
        Axis(
            length=draw(st.integers(1, 20)),
            size=draw(st.integers(1, 6)),
            stride=draw(st.integers(1, 7)),
            before=(pad := draw(st.integers(0, 2))),
            after=pad,
        )
        for _ in range(draw(st.integers(1, 3)))
    )
    return SliceGrid("set", axes)


def all_of(order, **keys):
    return np.concatenate([*order.numbers(**{"seed": 0, "epoch": 1, **keys}), np.empty(0, np.int64)])


@settings(deadline=None, max_examples=150)
@given(
    grids(),
    st.lists(st.integers(1, 8), min_size=3, max_size=3),
    st.integers(1, 8),
    st.sampled_from([64, 512, 4096, ENOUGH]),
    st.data(),
)
def test_every_slice_comes_once_whatever_the_geometry(grid, blocks, a_voxel, window, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slice_order, "WINDOW", window)
        patch.setattr(slice_order, "PART", 7)
        patch.setattr(slice_order, "LISTED", 16)
        order = order_of(grid, [(tuple(blocks[: len(grid.axes)]), a_voxel)])
        numbers = all_of(order)
        assert sorted(numbers.tolist()) == list(range(grid.count))
        start = data.draw(st.integers(0, grid.count))
        np.testing.assert_array_equal(all_of(order, start=start), numbers[start:])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_a_computed_permutation_has_every_number_once(count, key):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slice_order, "LISTED", 0)
        order = Permutation(count, key)
        assert sorted(order[np.arange(count)].tolist()) == list(range(count))
        np.testing.assert_array_equal(order[np.array([count - 1, 0])], order[np.arange(count)][[-1, 0]])


def test_a_computed_permutation_is_as_even_as_a_drawn_one():
    count = 5_000_000
    positions = np.arange(0, count, 1009)
    numbers = Permutation(count, 7)[positions]
    assert len(np.unique(numbers)) == len(positions)
    # 50 parts of about 99 each, and no step is more frequent than others.
    parts = np.bincount(numbers // (count // 50), minlength=50)
    assert ((parts - len(positions) / 50) ** 2 / (len(positions) / 50)).sum() < 90
    assert abs(np.corrcoef(positions, numbers)[0, 1]) < 0.05
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.05


def test_another_epoch_and_another_seed_and_another_set_are_another_order():
    axes = (Axis(40, 4, 4), Axis(40, 4, 4))
    order = order_of(SliceGrid("one", axes), [((8, 8), 1)])
    first = all_of(order)
    np.testing.assert_array_equal(all_of(order), first)
    for other in (all_of(order, epoch=2), all_of(order, seed=1)):
        assert not np.array_equal(other, first)
    assert not np.array_equal(all_of(order_of(SliceGrid("two", axes), [((8, 8), 1)])), first)


def test_a_small_volume_is_shuffled_as_a_whole():
    order = order_of(SliceGrid("set", (Axis(512, 1, 1), Axis(512, 512, 512), Axis(512, 512, 512))), [((64,) * 3, 4)])
    assert order.runs is None
    numbers = all_of(order)
    assert abs(np.corrcoef(np.arange(512), numbers)[0, 1]) < 0.2
    assert np.abs(np.diff(numbers)).mean() > 100


def chunks_read(order, chunk, kept):
    """How often a chunk is read, on average, where a cache keeps the `kept` that were used last."""
    grid, cache, read, all_chunks = order.grid, {}, 0, set()
    for number in all_of(order).tolist():
        location = grid.location(number)
        ends = zip(location.box, chunk, strict=True)
        spans = [range(part.start // size, -(-part.stop // size)) for part, size in ends]
        for index in np.stack(np.meshgrid(*spans, indexing="ij"), -1).reshape(-1, len(chunk)).tolist():
            key = tuple(index)
            read += key not in cache
            cache.pop(key, None)
            cache[key] = None
            all_chunks.add(key)
            if len(cache) > kept:
                del cache[next(iter(cache))]
    return read / len(all_chunks)


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_planes_across_chunks_read_each_once_a_window(monkeypatch, thin):
    """2D slices in three orientations of a volume that is eight windows large: a plain shuffle reads every chunk for
    each of its 16 planes."""
    monkeypatch.setattr(slice_order, "WINDOW", 8 * 64 * 64 * 16 * 2)
    lengths = [64, 64, 64]
    lengths[thin] *= 16
    axes = tuple(
        Axis(length, 1, 1) if number == thin else Axis(length, 64, 64) for number, length in enumerate(lengths)
    )
    order = order_of(SliceGrid("set", axes), [((16, 16, 16), 2)])
    assert order.runs == 8
    window = slice_order.WINDOW // (16**3 * 2)
    assert chunks_read(order, (16, 16, 16), window) <= 1.05
    # They are all over the volume: each window has slices from most of it.
    first = all_of(order)[: 8 * 16]
    assert np.ptp(first) > 0.5 * order.grid.count
    assert len(np.unique(first // 16)) == 8
    # And in the window they are in no order.
    assert np.abs(np.diff(first)).mean() > 100


@pytest.mark.parametrize("thin", [0, 1, 2])
def test_planes_whose_chunks_fill_half_a_window_share_them_too(monkeypatch, thin):
    """A layer of chunks is then more than the part of a window that a run should be: it stays one run."""
    monkeypatch.setattr(slice_order, "WINDOW", 2 * 64 * 64 * 16 * 2)
    axes = [Axis(64, 64, 64)] * 3
    axes[thin] = Axis(128, 1, 1)
    order = order_of(SliceGrid("set", tuple(axes)), [((16, 16, 16), 2)])
    assert order.runs == 2
    assert chunks_read(order, (16, 16, 16), slice_order.WINDOW // (16**3 * 2)) <= 1.05


def test_overlapping_bricks_share_what_they_read(monkeypatch):
    monkeypatch.setattr(slice_order, "WINDOW", 128 * 16**3)
    grid = SliceGrid("set", tuple(Axis(256, 16, 8) for _ in range(3)))
    order = order_of(grid, [((16, 16, 16), 1)])
    assert order.runs is not None
    # Half of the bricks lie across each border: a brick at a time would read 8 chunks each, in a shuffle 27.
    assert chunks_read(order, (16, 16, 16), 200) < 9


def test_runs_of_a_mapped_file_are_neighbours_along_its_last_axis(monkeypatch):
    monkeypatch.setattr(slice_order, "WINDOW", 1 << 20)
    monkeypatch.setattr(slice_order, "READ_AHEAD", 512)
    assert layout_of((1, 64, 256, 256), 4, None) == ((1, 1, 128), 4)
    assert layout_of((2, 64, 8, 8), 4, None) == ((2, 8, 8), 8)
    assert layout_of((2, 64, 8, 8), 2, (1, 16, 4, 8)) == ((16, 4, 8), 4)
    assert layout_of((1, 64, 256, 256), 4, None, fortran=True) == ((64, 2, 1), 4)
    tiles = SliceGrid("set", (Axis(64, 16, 16), Axis(256, 16, 16), Axis(256, 1, 1)))
    order = order_of(tiles, [layout_of((1, 64, 256, 256), 4, None)])
    assert [cut.length for cut in order.cuts][2] >= 64
    numbers = all_of(order)
    # Of the first window, tiles at one place (H, W) are of few runs.
    count = order.runs * 64
    assert len(np.unique(numbers[:count] // 64)) <= 2 * order.runs


def test_a_thousand_million_slices_cost_nothing():
    grid = SliceGrid("set", (Axis(4096, 1, 1), Axis(4096, 64, 8), Axis(4096, 64, 8)))
    assert grid.count > 10**9
    for blocks in ((64, 64, 64), (1, 16, 4096)):
        order = order_of(grid, [(blocks, 4)])
        first = next(order.numbers(0, 1))
        assert len(first) <= slice_order.PART
        assert len(np.unique(first)) == len(first)
        assert first.max() < grid.count


# --- batches of several sets


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(0, 99), st.data())
def test_batches_of_all_sets_are_mixed_and_resumed(counts, seed, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slice_order, "PART", 7)
        whole = list(mixed(counts, seed, 1))
        assert sorted(whole) == [(which, number) for which, count in enumerate(counts) for number in range(count)]
        for which in range(len(counts)):
            numbers = [number for each, number in whole if each == which]
            assert numbers == sorted(numbers)
        start = data.draw(st.integers(0, sum(counts)))
        assert list(mixed(counts, seed, 1, start)) == whole[start:]


def test_sets_are_spread_over_the_epoch():
    counts = (300, 100)
    whole = [which for which, _ in mixed(counts, 0, 1)]
    for at in range(0, 400, 50):
        assert 5 <= sum(whole[at : at + 50]) <= 20
    assert whole != [which for which, _ in mixed(counts, 0, 2)]
    assert whole != [which for which, _ in mixed(counts, 1, 1)]
    assert len(list(islice(mixed((10**9, 10**8), 0, 1, 10**9), 5))) == 5
    assert prod(counts) == 30000
