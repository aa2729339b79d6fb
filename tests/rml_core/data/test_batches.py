"""Batches: what is in them, in what order, and that nothing else decides it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from rml_core.config.problem import RunFailed
from rml_core.config.target import IGNORED
from rml_core.data.batches import batches
from rml_core.data.images import decode, decode_mask
from rml_core.data.samples import Samples

LABELS = {"target_type": "labels", "input_path": "in", "batch_size": 4}
MASKS = {"target_type": "images", "target_is_mask": True, "input_path": "in", "target_path": "masks", "batch_size": 2}
RANDOM = [
    {"resize": [7, 5]},
    {"random_horizontal_flip": 0.5},
    {"random_vertical_flip": 0.5},
    {"rotate": 20},
    {"normalize": {"mean": [0.1, 0.2, 0.3], "std": 0.5}},
]


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def masks(work, count=5):
    for i in range(count):
        work.write(f"in/{i}.png", 9, 11)
        work.mask(f"masks/{i}.png", (np.arange(99).reshape(9, 11) + i) % 3 * 100)


@pytest.mark.parametrize("preload", [False, True])
def test_inputs_are_scaled_and_channels_last_in_memory(work, preload):
    work.two_classes()
    prepared = work.prepare(**LABELS, preload=preload)
    (one, two, three) = work.batches(**LABELS, preload=preload)
    assert [len(batch.indices) for batch in (one, two, three)] == [4, 4, 2]
    assert sorted(np.concatenate([one.indices, two.indices, three.indices])) == list(range(10))
    for batch in (one, two, three):
        tensor = torch.from_numpy(batch.inputs)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets is not None
        assert batch.targets.dtype == np.int64
        for x, t, i in zip(batch.inputs, batch.targets, batch.indices, strict=True):
            expected = (decode(prepared.inputs[i].file).transpose(2, 0, 1) / 255).astype(np.float32)
            np.testing.assert_array_equal(x, expected)
            assert prepared.names[i].startswith(("cats", "dogs")[t])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("transforms", [[], RANDOM[-1:], RANDOM, RANDOM[1:], RANDOM[:2]])
def test_neither_preloading_nor_threads_change_a_bit(work, transforms, training):
    work.two_classes(7)
    keys = {**LABELS, "transforms": transforms, "training": training}
    reference = work.batches(threads=0, **keys)
    for preload in (False, True):
        for threads in (1, 3):
            same(reference, work.batches(threads=threads, preload=preload, **keys))


def test_masks_with_transforms_are_the_same_preloaded(work):
    masks(work)
    keys = {**MASKS, "mapped": (0, 100, 200), "transforms": RANDOM[1:]}
    reference = work.batches(threads=0, **keys)
    for batch in reference:
        assert batch.targets is not None
        assert set(np.unique(batch.targets)) == {IGNORED, 0, 1, 2}
    same(reference, work.batches(preload=True, **keys))


@pytest.mark.parametrize("preload", [False, True])
def test_masks_are_classes(work, preload):
    masks(work)
    prepared = work.prepare(**MASKS, preload=preload)
    for batch in work.batches(**MASKS, preload=preload, mapped=(0, 100, 200)):
        assert batch.targets is not None
        assert batch.targets.dtype == np.int64
        for target, i in zip(batch.targets, batch.indices, strict=True):
            assert prepared.targets is not None
            np.testing.assert_array_equal(target * 100, decode_mask(prepared.targets[i].file)[:, :, 0])


@pytest.mark.parametrize("preload", [False, True])
def test_flips_flip_inputs_and_targets_alike(work, preload):
    for i in range(12):
        work.write(f"in/{i}.png", 5, 5)
    keys = {"input_type": None, "type": "images", "input_path": "in", "target_path": "in", "preload": preload}
    keys |= {"batch_size": 5, "transforms": [{"random_horizontal_flip": 0.5}, {"random_vertical_flip": 0.5}]}
    flipped = 0
    plain = {int(b.indices[0]): b.inputs[0] for b in work.batches(training=False, **{**keys, "batch_size": 1})}
    for batch in work.batches(**keys):
        np.testing.assert_array_equal(batch.inputs, batch.targets)
        flipped += sum(not np.array_equal(x, plain[int(i)]) for x, i in zip(batch.inputs, batch.indices, strict=True))
    assert 4 <= flipped <= 12


def test_another_epoch_and_another_seed_are_another_order_and_other_draws(work):
    work.two_classes(20)
    keys = {**LABELS, "batch_size": 40, "transforms": RANDOM}
    (one,) = work.batches(**keys)
    for other in (work.batches(**keys, epoch=2)[0], work.batches(**keys, seed=1)[0]):
        assert not np.array_equal(one.indices, other.indices)
        assert not np.array_equal(one.inputs[np.argsort(one.indices)], other.inputs[np.argsort(other.indices)])
    same([one], work.batches(**keys))


def test_evaluation_and_no_shuffling_keep_the_order(work):
    work.two_classes()
    (batch,) = work.batches(training=False, **{**LABELS, "batch_size": 10})
    assert batch.indices.tolist() == list(range(10))


@pytest.mark.parametrize("start", [0, 1, 4, 5])
@pytest.mark.parametrize("preload", [False, True])
def test_starting_in_the_middle(work, start, preload):
    work.two_classes(10)
    keys = {**LABELS, "preload": preload, "transforms": RANDOM}
    same(work.batches(**keys)[start:], work.batches(**keys, start=start))


def test_ranks_share_each_batch(work):
    work.two_classes()
    whole = work.batches(**LABELS)
    parts = [work.batches(**LABELS, rank=rank, world_size=3) for rank in range(3)]
    for i, batch in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([part[i].inputs for part in parts]), batch.inputs)
        np.testing.assert_array_equal(np.concatenate([part[i].indices for part in parts]), batch.indices)


@pytest.mark.parametrize("preload", [False, True])
def test_samples_of_different_sizes_one_by_one(work, preload):
    written = [work.write(f"in/{i}.png", 4 + i, 5) for i in range(4)]
    for batch in work.batches(input_path="in", batch_size=1, preload=preload):
        expected = written[batch.indices[0]].transpose(2, 0, 1)[None] / np.float32(255)
        np.testing.assert_array_equal(batch.inputs, expected)
        assert batch.targets is None


def test_16_bit_images(work):
    array = work.write("in/a.png", dtype="uint16")
    (batch,) = work.batches(input_path="in", preload=True)
    np.testing.assert_array_equal(batch.inputs[0], array.transpose(2, 0, 1) / np.float32(65535))


def test_threads_end_when_the_consumer_stops(work):
    work.two_classes(20)
    samples = Samples(work.prepare(**LABELS))
    made = batches(samples, batch_size=2, epoch=1, seed=0, training=True, shuffle=True, threads=3)
    next(made)
    assert any(thread.name.startswith("rml-loader") for thread in threading.enumerate())
    made.close()
    assert not any(thread.name.startswith("rml-loader") for thread in threading.enumerate())


def test_a_file_that_does_not_decode_when_due(work):
    work.two_classes()
    samples = Samples(work.prepare(**LABELS))
    (work.folder / "in/dogs/3.png").write_text("damaged")
    with pytest.raises(RunFailed) as failed:
        list(batches(samples, batch_size=4, epoch=1, seed=0, training=True, shuffle=True, threads=2))
    assert str(failed.value) == (
        f"{work.folder}/in/dogs/3.png: cannot be decoded: not an image that OpenCV reads, or damaged"
    )
    assert not any(thread.name.startswith("rml-loader") for thread in threading.enumerate())


def test_a_file_that_has_changed_its_size(work):
    work.two_classes()
    samples = Samples(work.prepare(**LABELS))
    work.write("in/dogs/3.png", 7, 9)
    with pytest.raises(RunFailed) as failed:
        list(batches(samples, batch_size=4, epoch=1, seed=0, training=True, shuffle=True, threads=2))
    assert str(failed.value) == (
        f"{work.folder}/in/dogs/3.png: gives 9 x 7 (width x height), not 8 x 6 (width x height) as before: "
        "has the file changed?"
    )
