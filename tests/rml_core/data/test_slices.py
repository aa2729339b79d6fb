"""Batches of slices: what is in them is what NumPy cuts, whatever the volume lies in, and whoever reads ahead."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rml_core.config.problem import RunFailed
from rml_core.config.target import IGNORED
from rml_core.data import slices as slices_module
from rml_core.data.batches import batches
from rml_core.data.slices import Slices

SETS = [
    {"name": "xz", "sizes": [6, 1, 5], "strides": [4, 2, 5], "padding": [1, 0, 2], "padding_mode": "reflect"},
    {"name": "tiles", "sizes": [1, 8, 7], "transpose": True, "discard_remainders": True},
    {"sizes": [9, 9, 1], "padded_sizes": [12, 9, 1], "padding_mode": "context"},
]
BRICKS = [
    {"name": "bricks", "sizes": [5, 4, 6], "strides": [3, 4, 3], "padding": 2, "padding_mode": "edge"},
    {"name": "more", "sizes": [4, 5, 6], "padding_mode": "context", "padding": 1},
]
LINES = [{"sizes": [1, 1, 9], "strides": [5, 4, 8]}, {"sizes": [7, 1, 1], "strides": [7, 3, 4], "padding": 1}]
VOXELS = [{"sizes": [1, 1, 1], "strides": [5, 4, 8]}]
KINDS = {"npy": ("numpy", ".npy"), "npz": ("numpy", ".npz"), "hdf5": ("hdf5", ".h5"), "zarr3": ("zarr", ".zarr")}
RANDOM = [
    {"random_horizontal_flip": 0.5},
    {"random_rotate": 20},
    {"resize": [9, 10]},
    {"random_vertical_flip": 0.5},
]


def volume(dtype="float32", channels=2, seed=0, shape=(17, 13, 19)):
    values = np.random.default_rng(seed).normal(0, 40, (channels, *shape))
    return np.clip(values, 0 if np.dtype(dtype).kind == "u" else -128, 127).astype(dtype)


def saved(work, kind, name, array):
    """The array in a file of `kind`: of HDF5 a compressed chunked one."""
    type_, suffix = KINDS[kind]
    if kind != "hdf5":
        path = work.save(kind, name if kind == "npy" else name + suffix, {"a": array})
        return type_, path + "/a.npy" * (kind == "npy")
    import h5py

    with h5py.File(work.folder / (name + suffix), "w") as file:
        file.create_dataset("a", data=array, chunks=(1, 8, 6, 7)[-array.ndim :], compression="gzip")
    return type_, name + suffix


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def parts_of(sets, cuts):
    """(set number, slice number in it) of every sample."""
    return [(which, number) for which, cut in enumerate(cuts) for number in range(cut.count)]


@pytest.fixture
def work(work, monkeypatch):
    """Nothing is too little to be handed to a thread."""
    monkeypatch.setattr(slices_module, "INLINE", 0)
    return work


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.parametrize(("kind", "dtype"), list(zip(KINDS, ["float32", "uint8", "float64", "int16"], strict=True)))
@pytest.mark.parametrize("sets", [SETS, BRICKS, LINES, VOXELS], ids=["2D", "3D", "1D", "0D"])
def test_batches_are_what_numpy_cuts(work, cut_by_numpy, sets, kind, dtype, preload):
    array, mask, values = volume(dtype), volume("uint8", 1, 1) % 3, volume("float32", 3, 2)
    type_, path = saved(work, kind, "x", array)
    keys = {"type": type_, "input_path": path, "batch_size": 4, "slicers": sets, "preload": preload}
    cuts = {name: [cut_by_numpy(each, one) for one in sets] for name, each in
            {"inputs": array, "mask": mask, "values": values}.items()}  # fmt: skip
    places = parts_of(sets, cuts["inputs"])
    padded = any(not cut(number)[1].all() for cut in cuts["inputs"] for number in range(cut.count))
    for name, target in (("mask", mask), ("values", values)):
        targets = saved(work, kind, f"y{name}", target[0] if name == "mask" else target)[1]
        keys |= {"target_path": targets, "target_is_mask": name == "mask"}
        seen = []
        for batch in work.batches(**keys):
            assert len({places[index][0] for index in batch.indices}) == 1
            assert batch.inputs.dtype == np.float32
            if batch.inputs.ndim == 4:
                assert torch.from_numpy(batch.inputs).is_contiguous(memory_format=torch.channels_last)
            rows = (rows if rows is not None else itertools.repeat(None) for rows in batch)
            for x, t, index, kept in zip(*rows, strict=False):
                which, number = places[index]
                seen.append((which, number))
                sample, there = cuts["inputs"][which](number)
                np.testing.assert_array_equal(x, sample.astype(np.float32))
                expected = cuts[name][which](number)[0]
                if name == "mask":
                    assert t.dtype == np.int64
                    np.testing.assert_array_equal(t, np.where(there, expected[0].astype(np.int64), IGNORED))
                    assert batch.kept is None
                else:
                    np.testing.assert_array_equal(t, expected)
                    grid_fills = any(not cuts["inputs"][which](n)[1].all() for n in range(cuts["inputs"][which].count))
                    assert (batch.kept is not None) == grid_fills
                    np.testing.assert_array_equal(there if kept is None else kept, there)
        assert sorted(seen) == places
    assert padded == (sets is not VOXELS)


@pytest.mark.parametrize(
    ("kind", "sets", "transforms", "training"),
    [
        ("npy", SETS, [], True),
        ("hdf5", SETS, [{"normalize": {"mean": [3, 4], "std": 0.5}}], True),
        ("npy", SETS, [*RANDOM, {"normalize": {"mean": 3}}], True),
        ("hdf5", SETS, [*RANDOM, {"normalize": {"mean": 3}}], True),
        ("npy", SETS, [*RANDOM, {"normalize": {"mean": 3}}], False),
        ("npy", BRICKS, [{"normalize": {"mean": [3, 4], "std": [0.5, 2]}}], True),
        ("hdf5", BRICKS, [{"normalize": {"mean": [3, 4], "std": [0.5, 2]}}], False),
        ("hdf5", LINES, [], True),
    ],
)
def test_neither_preloading_nor_threads_nor_memory_nor_a_resume_change_a_bit(work, kind, sets, transforms, training):
    type_, path = saved(work, kind, "x", volume("uint8"))
    _, targets = saved(work, kind, "y", volume("float32", 2, 1))
    keys = {"type": type_, "slicers": sets, "transforms": transforms, "training": training, "target_path": targets}
    keys |= {"input_path": path, "batch_size": 7}
    reference = work.batches(threads=0, **keys)
    for preload, threads in ((False, 1), (True, 3), (False, 3), (True, 0)):
        same(reference, work.batches(threads=threads, preload=preload, **keys))
    for start in (1, len(reference) // 2, len(reference) - 1, len(reference)):
        same(reference[start:], work.batches(start=start, **keys))
    if training:
        assert not np.array_equal(reference[0].indices, work.batches(epoch=2, **keys)[0].indices)


def test_classes_are_mapped_and_neither_padding_nor_ignored_values_are_any(work, cut_by_numpy):
    slicer = {"sizes": [1, 8, 8], "padding": 1}
    raw = np.random.default_rng(0).choice(np.array([0, 100, 200], np.uint8), (4, 10, 12))
    type_, path = saved(work, "npy", "x", volume(channels=1, shape=(4, 10, 12)))
    keys = {"type": type_, "input_path": path, "target_path": saved(work, "npy", "y", raw)[1], "batch_size": 9}
    prepared = work.prepare(**keys, target_is_mask=True, slicers=[slicer])
    source = Slices(prepared, (0, 200), ignore_index=100)
    order = {"batch_size": 9, "epoch": 1, "seed": 0, "training": False, "shuffle": False, "threads": 0}
    cut = cut_by_numpy(raw[None], slicer)
    for batch in batches(source, **order):
        for target, index in zip(batch.targets, batch.indices, strict=True):
            sample, there = cut(index)
            expected = np.select([~there, sample[0] == 0, sample[0] == 200], [IGNORED, 0, 1], IGNORED)
            np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("kept", ["mask", "values"])
def test_padding_moves_along_with_its_slice(work, kept):
    """A flip and a crop have voxels and what counts of them in register: inputs are 1 where there are voxels."""
    ones = np.ones((9, 14, 14), np.float32)
    _, path = saved(work, "npy", "x", ones)
    _, targets = saved(work, "npy", "y", ones.astype("uint8") if kept == "mask" else ones)
    slicers = [{"sizes": [1, 9, 9], "padded_sizes": [1, 10, 14]}]
    transforms = [{"random_horizontal_flip": 0.5}, {"random_vertical_flip": 0.5}, {"center_crop": [11, 10]}]
    keys = {"type": "numpy", "input_path": path, "target_path": targets, "batch_size": 6, "slicers": slicers}
    keys |= {"transforms": transforms[:2], "target_transforms": transforms[2:], "input_transforms": transforms[2:]}
    seen = set()
    for batch in work.batches(**keys, target_is_mask=kept == "mask"):
        for row, sample in enumerate(batch.inputs[:, 0]):
            there = batch.targets[row] != IGNORED if kept == "mask" else batch.kept[row]
            np.testing.assert_array_equal(there, sample == 1)
            seen.add(sample.tobytes())
    assert len(seen) > 4


def test_a_transform_of_the_targets_alone_moves_what_counts_of_them_by_the_same_draw(work):
    ones = np.ones((9, 14, 14), np.float32)
    _, path = saved(work, "npy", "x", ones)
    slicers = [{"sizes": [1, 9, 9], "padded_sizes": [1, 10, 14]}]
    keys = {"type": "numpy", "input_path": path, "target_path": path, "batch_size": 6, "slicers": slicers}
    keys["target_transforms"] = [{"random_horizontal_flip": 0.5}, {"random_zoom": 0.3}]
    flipped = 0
    for batch in work.batches(**keys):
        # Bilinear values lie between 0 and 1 where the nearest voxel is either.
        assert (batch.targets[:, 0][batch.kept] > 0.4).all()
        assert (batch.targets[:, 0][~batch.kept] < 0.6).all()
        flipped += sum(not kept[:, :3].any() and not kept[:, -3:].any() for kept in batch.kept)
    assert flipped < 18


def test_patches_of_slices_make_their_targets(work):
    array = volume("float32", 1) + 500
    _, path = saved(work, "npy", "x", array)
    keys = {"type": "numpy", "input_path": path, "batch_size": 6, "slicers": [{"sizes": [1, 12, 13], "padding": 1}]}
    patches = {"random_patches": {"number": 3, "size": 4}}
    plain = {int(i): x for b in work.batches(**keys) for i, x in zip(b.indices, b.inputs, strict=True)}
    shown = 0
    for batch in work.batches(**keys, transforms=[patches]):
        whole = np.stack([plain[int(index)] for index in batch.indices])
        np.testing.assert_array_equal(batch.inputs + batch.targets, whole)
        np.testing.assert_array_equal(batch.kept, whole[:, 0] != 0)
        shown += np.count_nonzero(batch.targets)
    assert shown > 0


def test_slices_of_drawn_sizes_come_one_by_one(work):
    _, path = saved(work, "npy", "x", volume())
    keys = {"type": "numpy", "input_path": path, "target_path": path, "batch_size": 1, "slicers": SETS}
    made = work.batches(**keys, transforms=[{"jitter_crop": 0.5}])
    assert len({batch.inputs.shape for batch in made}) > 5
    for batch in made:
        np.testing.assert_array_equal(batch.inputs, batch.targets)
        assert batch.kept is None or batch.kept.shape == (1, *batch.inputs.shape[2:])
    same(made, work.batches(**keys, transforms=[{"jitter_crop": 0.5}], threads=0))


# --- order


def test_batches_of_all_sets_are_mixed_and_as_many_as_was_said(work):
    _, path = saved(work, "npy", "x", volume())
    keys = {"type": "numpy", "input_path": path, "batch_size": 4, "slicers": SETS}
    prepared = work.prepare(**keys)
    firsts = [each.first for each in Slices(prepared).sets]
    made = work.batches(**keys)
    assert len(made) == prepared.batches == work.survey(**keys).batches
    which = [int(np.searchsorted(firsts, batch.indices[0], side="right")) for batch in made]
    assert sorted(which) != which
    assert set(which[: len(which) // 2]) == set(which[len(which) // 2 :]) == {1, 2, 3}


def test_evaluation_and_no_shuffling_keep_the_order(work):
    _, path = saved(work, "npy", "x", volume())
    keys = {"type": "numpy", "input_path": path, "batch_size": 4, "slicers": SETS}
    order = {"batch_size": 4, "epoch": 1, "seed": 0, "threads": 0}
    source = Slices(work.prepare(**keys))
    for modes in ({"training": False, "shuffle": True}, {"training": True, "shuffle": False}):
        for start in (0, 3, 30):
            numbers = [batch.indices for batch in batches(source, **order, **modes, start=start)]
            expected = [each.first + np.arange(each.grid.count) for each in source.sets]
            split = [part[at : at + 4] for part in expected for at in range(0, len(part), 4)]
            assert [each.tolist() for each in numbers] == [each.tolist() for each in split[start:]]


def test_what_is_assembled_is_evaluated_in_the_order_of_its_slabs(work, monkeypatch):
    _, path = saved(work, "npy", "x", volume())
    monkeypatch.setattr("rml_core.slicers.grid.EASY_LAYER", 1)
    keys = {"type": "numpy", "test_input_path": path, "test_batch_size": 4, "role": "test"}
    keys["slicers"] = [{"sizes": [9, 3, 6], "strides": [4, 3, 3]}, {"sizes": [2, 13, 4]}]
    source = Slices(work.prepare(**keys), channels=2)
    made = list(batches(source, batch_size=4, epoch=1, seed=0, training=False, shuffle=True, threads=2))
    axes = []
    for each in source.sets:
        axis = each.grid.slab_axis(2)
        axes.append(axis)
        numbers = [each.first + each.grid.in_order(at, axis) for at in range(each.grid.count)]
        of_set = [i for batch in made for i in batch.indices.tolist() if each.first <= i < each.first + len(numbers)]
        assert sorted(of_set[:4]) == sorted(numbers[:4])
        assert sorted(of_set) == sorted(numbers)
    assert axes == [1, 0]


# --- what is said of them


def test_slices_have_names_and_places(work):
    _, path = saved(work, "npy", "x", volume())
    source = Slices(work.prepare(type="numpy", input_path=path, slicers=SETS))
    second, third = source.sets[1].first, source.sets[2].first
    file = work.folder / path
    assert source.names[0] == "xz/00000"
    assert source.names[second + 1] == "tiles/00001"
    assert source.names[len(source.names) - 1] == f"slice_set_3/{source.sets[2].grid.count - 1:05}"
    assert source.places[1] == f"xz/00001 ([0:6, 0:1, 5:10] of {file})"
    assert source.places[third] == f"slice_set_3/00000 ([0:9, 0:9, 0:1] of {file})"
    with pytest.raises(IndexError):
        source.names[source.count]


def test_broken_slices_are_named_with_their_places(work):
    array, values = volume(channels=1)[0], volume(channels=1)[0]
    array[0, 3, 2], values[3, 12, 18] = np.nan, np.inf
    paths = [saved(work, "npy", name, each)[1] for name, each in (("x", array), ("y", values))]
    keys = {"type": "numpy", "input_path": paths[0], "target_path": paths[1], "slicers": [{"sizes": [1, 13, 19]}]}
    source = Slices(work.prepare(**keys))
    said = "numbers that are nan or infinite: mend them or leave them out"
    assert source.broken(np.array([1, 2])) == ""
    assert source.broken(np.array([2, 3])) == (
        f"slice_set_1/00003 ([3:4, 0:13, 0:19] of {work.folder}/y/a.npy) has {said}"
    )
    assert source.broken(np.array([3, 0, 1])) == (
        f"slice_set_1/00003 ([3:4, 0:13, 0:19] of {work.folder}/y/a.npy) and 1 more of the batch have {said}"
    )


@pytest.mark.parametrize("kind", ["npy", "hdf5"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(
    "sets", [SETS, [{"sizes": [6, 6, 6], "strides": [4, 3, 9]}, {"sizes": [5, 5, 5], "strides": [3, 3, 3]}]]
)
def test_nan_values_are_counted_once_a_voxel_in_the_first_whole_pass(work, sets, kind, dtype, cut_by_numpy):
    array = volume(dtype)
    holes = np.random.default_rng(5).random(array.shape) < 0.01
    array[holes] = np.nan
    covered = np.zeros(array.shape[1:], bool)
    for cut in (cut_by_numpy(array, each) for each in sets):
        for number in range(cut.count):
            covered[cut.box(number)] = True
    count = int((holes & covered).sum())
    type_, path = saved(work, kind, "x", array)
    source = Slices(work.prepare(type=type_, input_path=path, slicers=sets))
    file = f"{work.folder}/{path}" + ":/a" * (kind == "hdf5")
    order = {"batch_size": 4, "epoch": 1, "seed": 0, "shuffle": True, "threads": 2}
    list(batches(source, **order, training=True, start=2))
    stopped = batches(source, **order, training=True)
    next(stopped)
    stopped.close()
    assert source.warnings == []
    list(batches(source, **order, training=False))
    assert source.warnings == [f"{file} has {count} nan values"]
    list(batches(source, **order, training=False))
    assert len(source.warnings) == 1


@pytest.mark.parametrize("transforms", [[], [{"random_horizontal_flip": 0.5}]])
def test_nan_values_of_targets_are_counted_too(work, transforms):
    """With overlaps, and 2D slices whose first steps are those of images."""
    array, values = volume(), volume(seed=1, channels=3)
    array[0, 3, 2, 1] = values[0, 0, 0, 0] = values[2, 16, 12, 18] = np.nan
    paths = [saved(work, kind, name, each)[1] for kind, name, each in (("npy", "x", array), ("hdf5", "y", values))]
    keys = {"input_type": "numpy", "target_type": "hdf5", "input_path": paths[0], "target_path": paths[1]}
    source = Slices(work.prepare(**keys, slicers=[{"sizes": [1, 8, 8], "strides": [1, 5, 5]}], transforms=transforms))
    order = {"batch_size": 4, "epoch": 1, "seed": 0, "shuffle": True, "threads": 2, "training": True}
    list(batches(source, **order))
    assert source.warnings == [
        f"{work.folder}/{paths[0]} has 1 nan value",
        f"{work.folder}/{paths[1]}:/a has 2 nan values",
    ]
    list(batches(source, **order))
    assert len(source.warnings) == 2


def test_numbers_without_nan_are_nothing_to_speak_of(work):
    _, path = saved(work, "npy", "x", volume())
    source = Slices(work.prepare(type="numpy", input_path=path, slicers=SETS))
    list(batches(source, batch_size=4, epoch=1, seed=0, shuffle=True, threads=2, training=True))
    assert source.warnings == []


def test_neighbours_are_read_at_once_within_the_bytes_that_they_may_take(work):
    """Planes across chunks of 8 a side, without a cache: at once, or each by itself."""
    type_, path = saved(work, "hdf5", "x", volume(channels=1))
    prepared = work.prepare(type=type_, input_path=path, slicers=[{"sizes": [1, 13, 19]}])
    made, read = [], []
    for common_bytes in (8 * 13 * 19 * 4, 8 * 13 * 19 * 4 - 1):
        source = Slices(prepared, common_bytes=common_bytes)
        order = {"batch_size": 8, "epoch": 1, "seed": 0, "shuffle": False, "threads": 0, "training": False}
        made.append([batch.inputs.copy() for batch in batches(source, **order)])
        read.append(source._inputs.bytes_read)
    same(*made)
    assert read[1] > 4 * read[0]


def test_a_transform_that_fails_names_the_slice(work, monkeypatch):
    _, path = saved(work, "npy", "x", volume())
    keys = {"type": "numpy", "input_path": path, "slicers": SETS[1:2], "transforms": [{"random_zoom": 0.2}]}
    prepared = work.prepare(**keys)

    def failing(*_):
        raise ValueError("no\n way")

    monkeypatch.setattr("rml_core.transforms.interpolation.enlarged", failing)
    with pytest.raises(RunFailed) as failed:
        list(batches(Slices(prepared), batch_size=1, epoch=1, seed=0, training=True, shuffle=False, threads=1))
    assert str(failed.value) == (
        f"tiles/00000 ([0:1, 0:8, 0:7] of {work.folder}/{path}): cannot be transformed: no way"
    )


def test_chunks_that_are_forgotten_are_read_again(work):
    type_, path = saved(work, "hdf5", "x", volume())
    prepared = work.prepare(type=type_, input_path=path, target_path=path, slicers=BRICKS)
    source = Slices(prepared, cache_bytes=1 << 24)
    order = {"batch_size": 4, "epoch": 1, "seed": 0, "training": True, "shuffle": True, "threads": 2}
    read = []
    for forget in (False, False, True, False):
        if forget:
            source.forget()
        list(batches(source, **order))
        read.append([side.bytes_read for side in source._volumes])
    assert read[0] == read[1]
    assert read[2] == read[3] == [2 * count for count in read[0]]
    source.close()


def test_read_ahead_is_bounded_in_bytes(work):
    _, path = saved(work, "npy", "x", volume(shape=(64, 13, 19)))
    source = Slices(work.prepare(type="numpy", input_path=path, slicers=[{"sizes": [1, 13, 19]}]))
    made = []
    room = source.room
    source.room = lambda indices: made.append(indices) or room(indices)
    a_batch = 4 * 2 * 13 * 19 * 4
    order = {"batch_size": 4, "epoch": 1, "seed": 0, "training": True, "shuffle": True, "threads": 2}
    for limit, ahead in ((1, 1), (2 * a_batch, 2), (100 * a_batch, 3)):
        made.clear()
        running = batches(source, **order, ahead_bytes=limit)
        next(running)
        assert len(made) == 1 + ahead
        next(running)
        assert len(made) == 2 + ahead
        running.close()
