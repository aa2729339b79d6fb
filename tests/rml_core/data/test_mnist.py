"""IDX files as scikit-learn's digits are written in them, plain and packed."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rml_core.config.problem import Refused
from rml_core.config.target import Target

WHERE = "neural_network.data"
NAMES = {
    "training": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def digits(start, stop):
    images, labels = load_digits(return_X_y=True)
    return (images[start:stop].reshape(-1, 8, 8) * 15).astype(np.uint8), labels[start:stop].astype(np.uint8)


def idx(array):
    """https://yann.lecun.com/exdb/mnist: two zeros, 8 for bytes, the number of axes, the sizes, the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder, role, images, labels, packed=False):
    folder.mkdir(exist_ok=True)
    for name, array in zip(NAMES[role], (images, labels), strict=True):
        content = idx(array)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)


@pytest.fixture(params=[False, True], ids=["plain", "packed"])
def mnist(work, request):
    write(work.folder / "mnist", "training", *digits(0, 40), packed=request.param)
    write(work.folder / "mnist", "test", *digits(40, 55), packed=request.param)
    (work.folder / "mnist" / "README").write_text("what there is")
    return work


def refusal(work, role="training", **keys):
    with pytest.raises(Refused) as refused:
        work.survey(role, **keys)
    return str(refused.value)


@pytest.mark.parametrize("preload", [True, False])
def test_a_folder_with_all_four_files(mnist, preload):
    keys = {"type": "mnist", "input_path": "mnist", "test_input_path": "mnist", "preload": preload}
    for role, (images, labels) in (("training", digits(0, 40)), ("test", digits(40, 55))):
        found = mnist.survey(role, **keys)
        assert found.sample_shape == (1, 8, 8)
        assert found.target == Target("labels", (), int(labels.max()) + 1)
        assert found.classes == tuple("0123456789"[: labels.max() + 1])
        assert found.names == tuple(f"{i:05d}" for i in range(len(images)))
        (batch,) = mnist.batches(False, role=role, **keys)
        np.testing.assert_array_equal(batch.inputs[:, 0], images / np.float32(255))
        np.testing.assert_array_equal(batch.targets, labels)


def test_files_by_themselves_and_transforms(mnist):
    (images,) = (mnist.folder / "mnist").glob("t10k-images*")
    (labels,) = (mnist.folder / "mnist").glob("t10k-labels*")
    pixels, classes = digits(40, 55)
    keys = {"type": "mnist", "input_path": str(images), "transforms": [{"rotate": 90}]}
    for target in ({}, {"target_path": str(labels)}, {"target_path": str(labels.parent)}):
        if target and target["target_path"] == str(labels.parent):
            # The folder's training labels are others.
            assert "40 targets" in refusal(mnist, **keys, **target)
            continue
        (batch,) = mnist.batches(False, **keys, **target)
        np.testing.assert_array_equal(batch.inputs[:, 0], np.rot90(pixels, -1, axes=(1, 2)) / np.float32(255))
        np.testing.assert_array_equal(batch.targets, classes)


@pytest.mark.parametrize("preload", [True, False])
def test_images_as_their_own_targets(mnist, preload):
    (images,) = (mnist.folder / "mnist").glob("train-images*")
    (batch,) = mnist.batches(False, type="mnist", input_path="mnist", target_path=str(images), preload=preload)
    np.testing.assert_array_equal(batch.inputs, batch.targets)
    assert batch.targets.shape == (40, 1, 8, 8)


def test_no_labels(mnist):
    assert mnist.survey("test", input_type="mnist", test_input_path="mnist").target is None
    for path in (mnist.folder / "mnist").glob("*labels*"):
        path.unlink()
    found = mnist.survey("test", type="mnist", test_input_path="mnist")
    assert found.target is None
    assert found.warnings == (f"{mnist.folder}/mnist has no labels for the test images: inference without labels",)
    assert refusal(mnist, type="mnist", input_path="mnist") == (
        f"{WHERE}.target_path: {mnist.folder}/mnist has no labels for the training images\n"
        "    put them there, or name their file in target_path"
    )


def test_an_unpacked_file_beside_the_packed_one_is_the_same(work):
    write(work.folder / "m", "training", *digits(0, 10))
    write(work.folder / "m", "training", *digits(0, 10), packed=True)
    assert work.survey(type="mnist", input_path="m").count == 10


def test_files_of_names_that_tell_nothing(work):
    images, labels = digits(0, 10)
    (work.folder / "m").mkdir()
    (work.folder / "m/a.idx").write_bytes(idx(images))
    (work.folder / "m/b.idx").write_bytes(idx(labels))
    for role, key in (("training", "input_path"), ("test", "test_input_path")):
        assert work.survey(role, type="mnist", **{key: "m"}).labels == tuple(labels)
    (work.folder / "m/c.idx").write_bytes(idx(images))
    assert refusal(work, type="mnist", input_path="m") == (
        f"{WHERE}.input_path: {work.folder}/m has several files with images: a.idx, c.idx\n"
        "    name the one that is meant"
    )


def test_the_files_of_the_other_role_do_not_stand_in(work):
    write(work.folder / "m", "training", *digits(0, 10))
    assert refusal(work, "test", type="mnist", test_input_path="m") == (
        f"{WHERE}.test_input_path: {work.folder}/m has no file with test images, only train-images-idx3-ubyte, "
        "train-labels-idx1-ubyte\n"
        '    name the file, or give it a name with "t10k" or "test" in it'
    )


def test_counts_that_differ(work):
    write(work.folder / "m", "training", digits(0, 10)[0], digits(0, 8)[1])
    assert refusal(work, type="mnist", input_path="m") == (
        f"{WHERE}.target_path: 10 inputs in {work.folder}/m and 8 targets in {work.folder}/m do not pair; "
        "inputs without a target: 00008, 00009\n"
        "    give both the same name (suffixes may differ), or as many of one as of the other"
    )


@pytest.mark.parametrize("packed", [False, True])
def test_files_that_are_damaged(work, packed):
    write(work.folder / "m", "training", *digits(0, 10), packed=packed)
    path = work.folder / "m" / (NAMES["training"][0] + ".gz" * packed)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    size = int.from_bytes(content[-104:-100], "little") if packed else 556
    assert refusal(work, type="mnist", input_path="m") == (
        f"{WHERE}.input_path: {path}: is damaged: its header says 10 x 8 x 8 images, 656 bytes, and there are {size}"
    )


def test_files_that_are_none(work):
    (work.folder / "m").mkdir()
    (work.folder / "m/a.png").write_bytes(b"\x89PNG\r\n")
    assert refusal(work, type="mnist", input_path="m") == (
        f"{WHERE}.input_path: {work.folder}/m has no MNIST files\n"
        "    name the folder with train-images-idx3-ubyte and its kin"
    )
    assert refusal(work, type="mnist", input_path="m/a.png") == (
        f"{WHERE}.input_path: {work.folder}/m/a.png: is no MNIST file: it begins with 89504e47, "
        "images with 00000803, labels with 00000801"
    )


def test_a_class_unseen_in_training(work):
    images, labels = digits(0, 10)
    write(work.folder / "m", "test", images, labels + 5)
    found = work.survey("test", type="mnist", test_input_path="m")
    assert found.classes == tuple(str(number) for number in range(15))
    assert refusal(work, "test", classes=tuple("0123456789"), type="mnist", test_input_path="m") == (
        f"{WHERE}.test_target_path: class 14 of {work.folder}/m/t10k-labels-idx1-ubyte was not there in training\n"
        "    allowed: the classes of training: 0 to 9"
    )


def test_images_and_labels_swapped(mnist):
    (images,), (labels,) = ((mnist.folder / "mnist").glob(f"train-{kind}*") for kind in ("images", "labels"))
    assert refusal(mnist, type="mnist", input_path=str(labels), target_path=str(images)) == (
        f"{WHERE}.input_path: {labels} has labels, and inputs are images\n"
        "    name the file with the images: are the two swapped?"
    )
