"""Random transforms on their way into batches: one draw for input and target, whatever reads, stores or works ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rml_core.config.problem import Refused
from rml_core.config.target import IGNORED
from rml_core.data.batches import batches
from rml_core.data.samples import Samples
from rml_core.data.store import Reader
from rml_core.transforms.geometry import Resize

RANDOM = [
    {"resize": [20, 16]},
    {"random_horizontal_flip": 0.5},
    {"random_rotate": 30},
    {"random_zoom": 0.4},
    {"random_vertical_flip": 0.5},
    {"jitter_crop": 0.4},
    {"resize": [12, 10]},
]
MASKS = {"target_type": "images", "target_is_mask": True, "input_path": "in", "target_path": "masks", "batch_size": 3}
PATCHES = {"input_path": "in", "batch_size": 4}
PATCHED = [{"resize": [12, 9]}, {"random_horizontal_flip": 0.5}, {"random_patches": {"number": 3, "size": 4}}]


def same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def by_sample(made):
    """Inputs and targets of all samples, in their order."""
    order = np.argsort(np.concatenate([batch.indices for batch in made]))
    return tuple(np.concatenate(side)[order] for side in ([b.inputs for b in made], [b.targets for b in made]))


def masks(work, count=7):
    for i in range(count):
        work.write(f"in/{i}.png", 24, 30)
        work.mask(f"masks/{i}.png", np.arange(24 * 30).reshape(24, 30) // (90 + i) % 3 * 100)


def pictures(work, count=9):
    for i in range(count):
        work.write(f"in/{i}.png", 11, 13)


def test_neither_threads_nor_preloading_nor_a_resume_change_a_bit_of_masks(work):
    masks(work)
    keys = {**MASKS, "transforms": RANDOM, "input_transforms": [{"normalize": {"mean": [0.1, 0.2, 0.3]}}]}
    keys |= {"mapped": (0, 100, 200), "epoch": 3}
    reference = work.batches(threads=0, **keys)
    for preload in (False, True):
        for threads in (1, 3):
            same(reference, work.batches(threads=threads, preload=preload, **keys))
        same(reference[1:], work.batches(preload=preload, start=1, **keys))
    for batch in reference:
        assert set(np.unique(batch.targets)) <= {IGNORED, 0, 1, 2}


def test_every_sample_and_every_epoch_draws_anew(work):
    for i in range(6):
        work.mask(f"in/{i}.png", np.arange(255, dtype=np.uint8).reshape(15, 17))
    keys = {"input_path": "in", "grayscale": True, "batch_size": 6, "transforms": [{"random_zoom": 0.5}]}
    seen = [work.batches(**keys, epoch=epoch, preload=preload)[0] for epoch in (1, 2) for preload in (False, True)]
    same([seen[0], seen[2]], [seen[1], seen[3]])
    assert len({sample.tobytes() for batch in seen for sample in batch.inputs}) == 12


def test_evaluation_applies_only_what_is_not_random(work):
    masks(work, 4)
    keys = {**MASKS, "mapped": (0, 100, 200), "training": False}
    plain = [step for step in RANDOM if "resize" in step]
    same(work.batches(**keys, transforms=RANDOM), work.batches(**keys, transforms=plain))


def test_what_one_side_has_alone_it_draws_alone(work):
    pictures(work)
    keys = {"type": "images", "input_path": "in", "target_path": "in", "batch_size": 9}
    inputs, targets = by_sample(work.batches(**keys, transforms=[{"random_rotate": 60}]))
    np.testing.assert_array_equal(inputs, targets)
    own = [{"random_rotate": 60}]
    inputs, targets = by_sample(work.batches(**keys, input_transforms=own, target_transforms=own))
    assert all(not np.array_equal(one, other) for one, other in zip(inputs, targets, strict=True))


@pytest.mark.parametrize("keys", [{"target_type": "labels", "input_path": "in"}, {**MASKS}], ids=["labels", "masks"])
def test_leading_transforms_are_applied_once_when_preloading(work, keys, monkeypatch):
    masks(work, 5)
    applied = []
    resize = Resize.apply

    def counting(self, array, draw=None, mask=False):
        applied.append(self.resize)
        return resize(self, array, draw, mask)

    monkeypatch.setattr(Resize, "apply", counting)
    sides = 2 if "target_path" in keys else 1
    chain = [{"resize": [20, 16]}, {"center_crop": [18, 14]}, {"random_vertical_flip": 0.5}, {"resize": [6, 5]}]
    prepared = work.prepare(**{**keys, "batch_size": 5}, preload=True, transforms=chain)
    assert set(applied) == {(20, 16)}
    # The first sample tells the shape of all of them.
    assert len(applied) == (5 + 1) * sides
    stored = Reader(Path(prepared.folder), "inputs").alike
    assert stored is not None
    assert (stored.shape, stored.dtype) == ((5, 14, 18, 3), np.uint8)
    applied.clear()
    samples = Samples(prepared, (0, 100, 200))
    settings = {"batch_size": 5, "seed": 0, "training": True, "shuffle": True, "threads": 2}
    for epoch in (1, 2, 3):
        list(batches(samples, epoch=epoch, **settings))
    assert applied == [(6, 5)] * 15 * sides


@pytest.mark.parametrize("preload", [False, True])
def test_patches_share_the_picture_out_between_input_and_target(work, preload):
    pictures(work)
    whole, _ = by_sample([b._replace(targets=b.inputs) for b in work.batches(**PATCHES, transforms=PATCHED[:2])])
    inputs, targets = by_sample(work.batches(**PATCHES, transforms=PATCHED, preload=preload))
    assert inputs.shape == targets.shape == (9, 3, 9, 12)
    assert targets.dtype == np.float32
    # The flip is drawn first: it is the same with and without patches.
    np.testing.assert_array_equal(inputs + targets, whole)
    black = (inputs == 0).all(1)
    np.testing.assert_array_equal((targets * black[:, None]) + inputs, whole)
    assert (black.sum((1, 2)) >= 16).all()
    assert (black.sum((1, 2)) <= 48).all()


def test_patches_are_the_same_in_every_evaluation_and_others_for_every_sample(work):
    for i in range(6):
        work.mask(f"in/{i}.png", np.full((14, 15), 255, np.uint8))
    keys = {"input_path": "in", "grayscale": True, "batch_size": 6, "transforms": PATCHED, "training": False}
    first = work.batches(**keys)
    for epoch, preload, threads in ((2, False, 0), (5, True, 3)):
        same(first, work.batches(**keys, epoch=epoch, preload=preload, threads=threads))
    assert not np.array_equal(first[0].inputs, work.batches(**keys, seed=1)[0].inputs)
    assert len({sample.tobytes() for sample in first[0].inputs}) == 6
    trained = {work.batches(**{**keys, "training": True}, epoch=epoch)[0].inputs.tobytes() for epoch in (1, 2)}
    assert len({*trained, first[0].inputs.tobytes()}) == 3


def test_what_follows_patches_acts_on_both_sides_and_black_is_0_in_its_place(work):
    pictures(work, 4)
    normalize = {"normalize": {"mean": 0.5, "std": 0.25}}
    plain = by_sample(work.batches(**PATCHES, transforms=PATCHED))
    after = by_sample(work.batches(**PATCHES, transforms=[*PATCHED, normalize]))
    for one, other in zip(plain, after, strict=True):
        np.testing.assert_array_equal((one - np.float32(0.5)) / np.float32(0.25), other)
    before = by_sample(work.batches(**PATCHES, transforms=[normalize, *PATCHED]))
    black = (plain[0] == 0).all(1)[:, None]
    np.testing.assert_array_equal(before[0] * black, 0)
    np.testing.assert_array_equal(before[1] * ~black, 0)
    alone = by_sample(work.batches(**PATCHES, transforms=PATCHED, target_transforms=[{"resize": [6, 5]}]))
    assert (alone[0].shape, alone[1].shape) == ((4, 3, 9, 12), (4, 3, 5, 6))


@pytest.mark.parametrize("role", ["training", "test"])
@pytest.mark.parametrize("named", [{}, {"target_type": "images"}, {"target_path": "in/", "test_target_path": "in"}])
def test_patches_need_no_targets_but_take_the_inputs_again(work, named, role):
    pictures(work, 2)
    found = work.survey(role, input_path="in", test_input_path="in", batch_size=2, transforms=PATCHED, **named)
    assert found.targets is None
    assert found.target is not None
    assert (found.target.kind, found.target.shape) == ("values", (3, 9, 12))


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"batch_size": 2, "transforms": [{"resize": [9, 9]}, {"jitter_crop": 0.5}]},
            "neural_network.data.transforms[1].jitter_crop: gives each sample a size of its own, and a batch has 2 "
            "samples\n    allowed: samples of one size\n"
            '    add {"resize": [Sx, Sy]} behind it, or set batch_size to 1',
        ),
        (
            {"input_transforms": [{"jitter_crop": 0.5}]},
            "neural_network.data.input_transforms[0].jitter_crop: gives each sample a size of its own, and a batch has "
            "64 samples\n    allowed: samples of one size\n"
            '    add {"resize": [Sx, Sy]} behind it, or set batch_size to 1',
        ),
        (
            {"transforms": [{"random_patches": {"number": 1, "size": 12}}, {"resize": [20, 20]}]},
            "neural_network.data.transforms[0].random_patches: patches of 12 x 12 are larger than a sample of 13 x 11 "
            "(width x height): {folder}/in/0.png\n    take smaller patches, or `resize` before them",
        ),
        (
            {"transforms": [{"center_crop": [12, 12]}, {"resize": [20, 20]}]},
            "neural_network.data.transforms[0].center_crop: 12 x 12 is larger than a sample of 13 x 11 (width x "
            "height): {folder}/in/0.png\n    crop less, or `resize` before it",
        ),
    ],
)
def test_what_is_refused_before_work(work, keys, text):
    pictures(work, 3)
    with pytest.raises(Refused) as refused:
        work.survey(input_path="in", **keys)
    assert str(refused.value) == text.replace("{folder}", str(work.folder))


def test_a_jitter_crop_asks_for_one_size_in_training_only(work):
    pictures(work, 3)
    keys = {"test_input_path": "in", "input_path": "in", "transforms": [{"jitter_crop": 0.5}], "batch_size": 1}
    assert work.survey("test", **keys).sample_shape == (3, 11, 13)
    assert work.survey("training", **keys).sample_shape == (3, None, None)
    sizes = {batch.inputs.shape for batch in work.batches(**keys)}
    assert len(sizes) > 1


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"target_type": "labels"},
            "neural_network.data.target_type: random_patches makes the targets out of the inputs\n"
            "    allowed: images\n    leave target_type out",
        ),
        (
            {"target_path": "masks"},
            "neural_network.data.target_path: random_patches makes the targets out of the inputs\n"
            "    allowed: the input_path again\n    leave target_path out",
        ),
        (
            {"test_input_path": "in", "test_target_path": "masks"},
            "neural_network.data.test_target_path: random_patches makes the targets out of the inputs\n"
            "    allowed: the test_input_path again\n    leave test_target_path out",
        ),
        (
            {"target_is_mask": True},
            "neural_network.data.target_is_mask: random_patches makes the targets out of the inputs: they are values\n"
            "    leave target_is_mask out",
        ),
        (
            {"target_grayscale": True},
            "neural_network.data.target_grayscale: random_patches makes the targets out of the inputs\n"
            "    set grayscale: inputs and targets are then of one channel",
        ),
        (
            {"input_transforms": PATCHED[-1:]},
            "neural_network.data.input_transforms: random_patches makes inputs and targets\n    move it to transforms",
        ),
        (
            {"transforms": [*PATCHED, *PATCHED]},
            "neural_network.data.transforms: random_patches stands there 2 times\n"
            "    allowed: once\n    raise the number of random_patches",
        ),
    ],
)
def test_what_does_not_go_with_patches(work, keys, text):
    with pytest.raises(Refused) as refused:
        work.section(**{"input_path": "in", "transforms": PATCHED, **keys})
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("kind", "file", "type_"), [("npy", "arrays", "numpy"), ("hdf5", "a.h5", "hdf5"), ("zarr3", "a.zarr", "zarr")]
)
@pytest.mark.parametrize("dtype", ["float64", "uint16", "int32", "uint8"])
def test_arrays_of_many_channels_go_through_the_same_transforms(work, kind, file, type_, dtype):
    rng = np.random.default_rng(0)
    arrays = {str(i): rng.integers(0, 200, (6, 14, 15)).astype(dtype) for i in range(3)}
    path = work.save(kind, file, arrays)
    keys = {"type": type_, "input_path": path, "target_path": path, "batch_size": 3}
    reference = work.batches(**keys, transforms=RANDOM, threads=0)
    same(reference, work.batches(**keys, transforms=RANDOM, preload=True))
    inputs, targets = by_sample(reference)
    assert inputs.shape == (3, 6, 10, 12)
    np.testing.assert_array_equal(inputs, targets)
    flipped, _ = by_sample(work.batches(**keys, transforms=[{"random_vertical_flip": 1.0}]))
    np.testing.assert_array_equal(flipped, np.stack([*arrays.values()])[:, :, ::-1].astype(np.float32))
