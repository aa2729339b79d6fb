"""What a survey finds, and every way in which it refuses."""

from __future__ import annotations

import pickle

import pytest

from rml_core.config.problem import Refused
from rml_core.config.target import Target
from rml_core.data.files import Item

WHERE = "neural_network.data"
LABELS = {"target_type": "labels", "input_path": "in"}
MASKS = {"target_type": "images", "target_is_mask": True, "input_path": "in", "target_path": "masks"}


def refusal(work, **keys):
    with pytest.raises(Refused) as refused:
        work.survey(**keys)
    return str(refused.value)


def test_images_and_labels(work):
    work.two_classes(3)
    found = work.survey(**LABELS, batch_size=4)
    assert found.names == tuple(f"{kind}/{i}.png" for kind in ("cats", "dogs") for i in range(3))
    assert found.inputs == tuple(Item(f"{work.folder}/in/{name}") for name in found.names)
    assert (found.labels, found.classes) == ((0, 0, 0, 1, 1, 1), ("cats", "dogs"))
    assert (found.sample_shape, found.target) == ((3, 6, 8), Target("labels", (), 2))
    assert (found.count, found.batches) == (6, 2)
    assert pickle.loads(pickle.dumps(found)) == found


def test_no_inputs_for_a_role(work):
    from rml_core.data.survey import survey

    assert survey(work.section(input_path="in"), "test", work.folder) is None


def test_one_file_and_inference(work):
    work.write("in/a.png")
    found = work.survey("test", test_input_path="in/a.png", grayscale=True)
    assert (found.names, found.sample_shape, found.target) == (("a.png",), (1, 6, 8), None)


@pytest.mark.parametrize(
    ("transforms", "shape"),
    [
        ([{"resize": [5, 4]}], (3, 4, 5)),
        ([{"center_crop": [5, 4]}], (3, 4, 5)),
        ([{"resize": [9, 9]}, {"center_crop": [5, 4]}, {"convert_color": "bgr2gray"}], (1, 4, 5)),
    ],
)
def test_transforms_make_sizes_equal(work, transforms, shape):
    work.write("in/a.png", 6, 8)
    work.write("in/b.png", 9, 7)
    assert work.survey(input_path="in", transforms=transforms).sample_shape == shape


def test_sizes_that_differ(work):
    work.write("in/a.png", 6, 8)
    work.write("in/b.png", 9, 8)
    assert refusal(work, input_path="in") == (
        f"{WHERE}.input_path: sizes differ: {work.folder}/in/a.png gives 8 x 6 (width x height), "
        f"{work.folder}/in/b.png 8 x 9 (width x height)\n"
        "    allowed: samples of one size\n"
        '    add a transform that makes them equal, as {"resize": [Sx, Sy]}, or set batch_size to 1'
    )
    assert work.survey(input_path="in", batch_size=1).sample_shape == (3, None, 8)


def test_a_crop_that_is_too_large_for_one_file(work):
    work.write("in/a.png", 6, 8)
    work.write("in/b.png", 9, 8)
    assert refusal(work, input_path="in", transforms=[{"center_crop": [8, 7]}]) == (
        f"{WHERE}.transforms[0].center_crop: 8 x 7 is larger than a sample of 8 x 6 (width x height): "
        f"{work.folder}/in/a.png\n"
        "    crop less, or `resize` before it"
    )


def test_a_conversion_that_does_not_take_the_files_depth(work):
    work.write("in/a.png", dtype="uint16")
    assert refusal(work, input_path="in", input_transforms=[{"convert_color": "BGR2HSV"}]) == (
        f"{WHERE}.input_transforms[0].convert_color: does not take the samples as they are here: "
        f"3 channels of uint16 in {work.folder}/in/a.png"
    )


def test_damaged_files_are_named_when_sizes_are_needed(work):
    work.write("in/a.png")
    for name in ("b.png", "c.png"):
        (work.folder / "in" / name).write_text("no image")
    assert refusal(work, input_path="in") == "\n".join(
        f"{WHERE}.input_path: {work.folder}/in/{name}: cannot be decoded: not an image that OpenCV reads, or damaged"
        for name in ("b.png", "c.png")
    )


def test_paths_of_inputs_and_targets_are_both_looked_at(work):
    text = refusal(work, **MASKS)
    assert text == (
        f"{WHERE}.input_path: {work.folder}/in does not exist\n"
        "    allowed: a file or a folder\n"
        f"    {work.folder} is empty\n"
        f"{WHERE}.target_path: {work.folder}/masks does not exist\n"
        "    allowed: a file or a folder\n"
        f"    {work.folder} is empty"
    )


def test_inputs_and_masks(work):
    for i in (1, 2, 10):
        work.write(f"in/{i}.jpg")
        work.mask(f"masks/{i}.png", [[0] * 8] * 6)
    found = work.survey(**MASKS)
    assert found.targets == tuple(Item(f"{work.folder}/masks/{i}.png") for i in (1, 2, 10))
    assert found.target == Target("mask", (6, 8))
    assert found.warnings == ()


def test_pairing_by_order_is_said(work):
    work.write("in/a.jpg")
    work.mask("masks/b.png", [[0] * 8] * 6)
    assert work.survey(**MASKS).warnings == (
        "inputs and targets have different names: they are paired in sorted order, a.jpg with b.png",
    )


def test_values_as_targets(work):
    work.write("in/a.png")
    keys = {"input_type": None, "type": "images", "input_path": "in", "target_path": "in", "target_grayscale": True}
    assert work.survey(**keys, target_transforms=[{"resize": [2, 3]}]).target == Target("values", (1, 3, 2))


def test_a_colour_mask(work):
    work.write("in/a.png")
    work.write("masks/a.png")
    assert refusal(work, **MASKS) == (
        f"{WHERE}.target_path: {work.folder}/masks/a.png: a mask has one channel, this file has colours; "
        "set target_grayscale to read it as grey"
    )


def test_tags(work):
    for name in ("train/cats/2020/a.png", "train/dogs/b.png", "test/dogs/x/c.png"):
        work.write(name)
    keys = {"target_type": "labels", "training_tag": "train", "test_tag": "test"}
    keys |= {"input_path": "train", "test_input_path": "test"}
    training = work.survey(**keys)
    assert (training.classes, training.labels) == (("cats", "dogs"), (0, 1))
    assert work.survey("test", training.classes, **keys).labels == (1,)


def test_a_tag_that_is_not_in_a_path(work):
    work.two_classes(2)
    assert refusal(work, **LABELS, training_tag="train") == (
        f'{WHERE}.training_tag: {work.folder}/in/cats/0.png has no folder right below a component "train" of its path '
        "(nor have 3 other files)\n"
        "    name the component above the class folders, or leave out training_tag: then the parent folder counts"
    )


def test_a_class_unseen_in_training(work):
    work.two_classes(1, "test")
    work.write("test/birds/b.png")
    with pytest.raises(Refused) as refused:
        work.survey("test", ("cats", "dogs"), target_type="labels", test_input_path="test")
    assert str(refused.value) == (
        f'{WHERE}.test_input_path: class "birds" of {work.folder}/test/birds/b.png was not there in training\n'
        "    allowed: the classes of training: cats, dogs\n"
        "    leave these files out, train with this class, or set test_tag where the class is another folder"
    )


def test_no_file_of_a_known_class_is_inference(work):
    work.write("unknown/a.png")
    found = work.survey("test", ("cats", "dogs"), target_type="labels", test_input_path="unknown")
    assert (found.labels, found.target, found.classes) == (None, None, ("cats", "dogs"))
    assert found.warnings == (
        f"no file of {work.folder}/unknown lies in a folder of a known class: inference without labels",
    )
