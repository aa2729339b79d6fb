"""The sections held against each other, against the data and against the network's shapes."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch

from rml_core.check import check, check_resume, check_without_data
from rml_core.config.problem import Refused
from rml_core.config.target import Target
from rml_core.run import read

Section = dict[str, Any]


@pytest.fixture
def section(classification: dict[str, Any]) -> Section:
    """The section of a run file that trains and evaluates on the pictures."""
    found: Section = classification["neural_network"]
    return found


@pytest.fixture
def segmentation(tmp_path: Path) -> Section:
    for role, count in (("", 4), ("test_", 2)):
        for kind in ("inputs", "masks"):
            (tmp_path / f"{role}{kind}").mkdir()
            for index in range(count):
                cv2.imwrite(str(tmp_path / f"{role}{kind}" / f"{index}.png"), np.full((6, 8), index % 2, np.uint8))
    return {
        "layers": [{"class_name": "Conv2D", "config": {"filters": 2, "kernel_size": 1, "activation": "softmax"}}],
        "data": {
            "type": "images",
            "input_path": str(tmp_path / "inputs"),
            "target_path": str(tmp_path / "masks"),
            "test_input_path": str(tmp_path / "test_inputs"),
            "test_target_path": str(tmp_path / "test_masks"),
            "target_is_mask": True,
            "target_grayscale": True,
        },
        "optimizer": {"type": "Adam"},
        "loss": {"function": "Dice"},
    }


def refused(section: Section, app: str | None = None, checked: Callable[..., Any] = check) -> str:
    with pytest.raises(Refused) as refusal:
        checked(read({"neural_network": section}), app)
    return str(refusal.value)


# --- what is found out


def test_a_classification(section: Section):
    checked = check(read({"neural_network": section}))
    assert checked.training is not None
    assert checked.test is not None
    assert (checked.training.count, checked.test.count) == (24, 10)
    assert checked.app == "dnn"
    assert checked.classes == ("left", "right")
    assert checked.target == Target("labels", (), 2)
    assert checked.network.input_shape == (1, 12, 12)
    assert checked.network.output_shape == (2,)
    assert checked.fitted is not None
    assert checked.fitted.source == "log_softmax"
    assert checked.warnings == ()
    assert not checked.transforms_first


def test_a_segmentation(segmentation: Section):
    checked = check(read({"neural_network": segmentation}))
    assert checked.target == Target("mask", (6, 8))
    assert checked.network.output_shape == (2, 6, 8)
    assert checked.classes == ()
    assert checked.fitted is not None
    assert checked.fitted.source == "softmax"


@pytest.mark.parametrize(
    ("preload", "transforms", "first"),
    [
        (True, [{"resize": [10, 10]}, {"random_horizontal_flip": 0.5}], True),
        (True, [{"random_horizontal_flip": 0.5}, {"resize": [10, 10]}], False),
        (False, [{"resize": [10, 10]}], False),
        (True, [], False),
    ],
)
def test_leading_transforms_of_preloaded_samples_come_first(
    section: Section, preload: bool, transforms: list[Any], first: bool
):
    section["data"] |= {"preload": preload, "transforms": transforms}
    assert check(read({"neural_network": section})).transforms_first is first


def test_inference_alone_needs_neither_loss_nor_targets(section: Section):
    for key in ("optimizer", "loss", "checkpoints"):
        del section[key]
    for key in ("input_path", "target_type"):
        del section["data"][key]
    checked = check(read({"neural_network": section}))
    assert (checked.training, checked.target, checked.fitted) == (None, None, None)
    assert checked.test is not None


def test_warnings_of_data_and_loss(segmentation: Section, tmp_path: Path):
    (tmp_path / "masks" / "3.png").rename(tmp_path / "masks" / "3b.png")
    segmentation["loss"] = {"function": "NLL"}
    assert check(read({"neural_network": segmentation})).warnings == (
        "inputs and targets have different names: they are paired in sorted order, 3.png with 3b.png",
        'neural_network.loss: NLL after softmax: the log is taken ("source": "softmax" says that this is meant)',
    )


def test_names_tell_that_weights_are_of_another_network(section: Section, tmp_path: Path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.attrs["layer_names"] = [f"block_{index}" for index in range(6)]
        for name in file.attrs["layer_names"]:
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}/kernel:0"]
            group.create_group(name)["kernel:0"] = np.zeros(1)
    section["checkpoints"] = {"load": str(tmp_path / "other.h5")}
    message = (
        f"neural_network.checkpoints.load: nothing in {tmp_path}/other.h5 fits a layer of the network\n"
        "    allowed: weights of conv, dense\n"
        "    the file has block_0, block_1, block_2, block_3 and 2 more: load another one, or give the layers its names"
    )
    assert refused(section) == message
    section["layers"][0]["config"]["batch_input_shape"] = [None, 12, 12, 3]
    assert refused(section, checked=check_without_data) == message


# --- what sections lack of each other


def test_training_needs_an_optimizer_and_a_loss(section: Section):
    del section["optimizer"], section["loss"]
    assert refused(section) == (
        "neural_network.optimizer: is missing: training needs one\nneural_network.loss: is missing: training needs one"
    )
    assert refused(section, checked=check_without_data) == refused(section)


def test_training_needs_targets(section: Section):
    del section["data"]["target_type"]
    section["data"].pop("test_input_path")
    section["data"].pop("test_output_path")
    assert refused(section) == (
        "neural_network.data.target_type: is missing: training needs targets\n"
        '    "labels" where the folders are the classes; otherwise what the files in target_path are'
    )


def test_training_needs_the_folder_of_its_targets(segmentation: Section):
    del segmentation["data"]["target_path"]
    assert refused(segmentation) == (
        "neural_network.data.target_path: is missing: training needs targets\n    name the folder that has them"
    )


def test_weights_that_are_neither_trained_nor_loaded(section: Section):
    section["data"] |= {"test_input_path": section["data"].pop("input_path")}
    for key in ("optimizer", "checkpoints"):
        section.pop(key, None)
    assert check(read({"neural_network": section})).warnings == (
        "neural_network.checkpoints.load: is missing: nothing is trained, and the weights stay as they begin",
    )


def test_test_targets_need_a_loss(segmentation: Section):
    del segmentation["loss"], segmentation["optimizer"]
    del segmentation["data"]["input_path"], segmentation["data"]["target_path"]
    assert refused(segmentation) == (
        "neural_network.loss: is missing: test targets need one\n"
        "    add a loss, or leave neural_network.data.test_target_path out"
    )


def test_early_stopping_needs_an_evaluation(section: Section):
    section["early_stopping"] = {"patience": 2}
    del section["data"]["test_input_path"], section["data"]["test_output_path"]
    assert refused(section) == (
        "neural_network.early_stopping: watches the evaluation of a training run, and this one has none\n"
        "    add data.test_input_path or data.validation_split, or leave early_stopping out"
    )


def test_early_stopping_needs_what_it_watches(segmentation: Section):
    segmentation["early_stopping"] = {"patience": 2, "metric": "accuracy"}
    segmentation["data"]["target_is_mask"] = False
    segmentation["layers"][0]["config"] |= {"filters": 1, "activation": "sigmoid"}
    assert refused(segmentation) == (
        "neural_network.early_stopping.metric: there is no accuracy where the targets are values\n    allowed: loss"
    )
    segmentation["early_stopping"]["metric"] = "loss"
    check(read({"neural_network": segmentation}))
    del segmentation["data"]["test_target_path"]
    assert refused(segmentation) == (
        "neural_network.early_stopping: watches the loss or the accuracy of test samples, and these have no targets\n"
        "    give test targets, or leave early_stopping out"
    )


@pytest.mark.parametrize("without", ["test_input_path", "test_target_path"])
def test_the_best_epoch_needs_test_targets(segmentation: Section, without: str):
    segmentation["checkpoints"] = {"save": "checkpoints", "best": True}
    said = "neural_network.checkpoints.best: no epoch is the best without test targets to judge it by"
    assert said not in check(read({"neural_network": segmentation})).warnings
    del segmentation["data"]["test_target_path"]
    segmentation["data"].pop(without, None)
    assert check(read({"neural_network": segmentation})).warnings[-1] == said


@pytest.mark.parametrize("app", [None, "dnn", "DNN"])
def test_app(section: Section, app: str | None):
    assert check(read({"neural_network": section}), app).app == "dnn"


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("pde", '--app: app "pde" is not available yet\n    allowed: dnn'),
        ("Obj", '--app: app "obj" is not available yet\n    allowed: dnn'),
        ("x", '--app: unknown app "x"\n    allowed: dnn'),
    ],
)
def test_an_app_that_is_not_there(section: Section, app: str, said: str):
    assert refused(section, app) == said
    assert refused(section, app, check_without_data) == said


# --- networks, data and files


def test_test_samples_of_another_size_that_need_other_weights(section: Section, tmp_path: Path):
    (tmp_path / "left").mkdir()
    cv2.imwrite(str(tmp_path / "left" / "a.png"), np.zeros((10, 14), np.uint8))
    section["data"]["test_input_path"] = str(tmp_path)
    assert refused(section) == (
        'neural_network.data.test_input_path: layer "dense" needs other weights for test samples (1, 10, 14) than for '
        "training samples (1, 12, 12)\n"
        "    allowed: samples of one size\n"
        '    add {"resize": [12, 12]} to the transforms, or end the network with a global pooling'
    )
    section["layers"][3] = {"class_name": "GlobalAveragePooling2D", "config": {"name": "pooled"}}
    checked = check(read({"neural_network": section}))
    assert checked.network.input_shape == (1, 12, 12)


def test_each_output_is_held_against_its_own_targets(segmentation: Section, tmp_path: Path):
    """Training on small pictures, testing on large ones."""
    for kind in ("test_inputs", "test_masks"):
        for index in range(2):
            cv2.imwrite(str(tmp_path / kind / f"{index}.png"), np.zeros((20, 30), np.uint8))
    assert check(read({"neural_network": segmentation})).network.output_shape == (2, 6, 8)
    segmentation["layers"][0]["config"]["strides"] = 2
    said = refused(segmentation)
    assert "(2, 3, 4) with the targets, one class a pixel of (6, 8)" in said
    assert "(2, 10, 15) with the targets, one class a pixel of (20, 30)" in said


def test_every_problem_of_every_part(section: Section, tmp_path: Path):
    section["data"]["input_path"] = str(tmp_path / "nowhere")
    section["checkpoints"]["load"] = str(tmp_path / "a.pt")
    del section["optimizer"]
    assert refused(section, "gan") == (
        '--app: app "gan" is not available yet\n'
        "    allowed: dnn\n"
        f"neural_network.checkpoints.load: {tmp_path}/a.pt does not exist\n"
        "    allowed: a file with weights\n"
        f"neural_network.data.input_path: {tmp_path}/nowhere does not exist\n"
        "    allowed: a file or a folder\n"
        f"    {tmp_path} is empty"
    )


def test_one_problem_is_said_once(segmentation: Section):
    """Training and test samples show the same."""
    segmentation["layers"][0]["config"]["strides"] = 2
    assert refused(segmentation).count("Dice cannot compare") == 1


def test_shapes_without_data(section: Section):
    """A resize tells the samples' size: the network's shapes follow."""
    section["data"] |= {"input_path": "/nowhere", "test_input_path": "/nowhere"}
    check_without_data(read({"neural_network": section}))
    section["layers"].insert(0, {"class_name": "Conv2D", "config": {"name": "large", "filters": 1, "kernel_size": 30}})
    check_without_data(read({"neural_network": section}))
    section["data"]["transforms"].insert(0, {"resize": [20, 20]})
    said = refused(section, checked=check_without_data)
    assert said.startswith('neural_network.layers[0]: layer "large" (Conv2D): ')
    with_shape = copy.deepcopy(section)
    with_shape["data"]["transforms"].pop(0)
    with_shape["layers"][0]["config"]["input_shape"] = [20, 20, 1]
    assert refused(with_shape, checked=check_without_data).startswith(
        'neural_network.layers[0]: layer "large" (Conv2D)'
    )


# --- what an earlier training knows


def checkpoint(path: Path, classes: list[str], mask_values: list[int] | None) -> None:
    header = {"run_id": "a", "started": 1.0, "epoch": 1, "batch": 0, "network": {}}
    torch.save({**header, "classes": classes, "mask_values": mask_values}, path)


def test_an_evaluation_takes_its_classes_from_the_checkpoint(section: Section, tmp_path: Path):
    del section["data"]["input_path"]
    checkpoint(tmp_path / "a.pt", ["both", "left", "right"], None)
    section["checkpoints"] = {"load": str(tmp_path / "a.pt")}
    section["layers"][-1]["config"]["units"] = 3
    checked = check(read({"neural_network": section}))
    assert checked.classes == ("both", "left", "right")
    assert checked.test is not None
    assert checked.test.labels is not None
    assert set(checked.test.labels) == {1, 2}
    assert checked.learned is not None
    assert checked.learned.mask_values is None

    checkpoint(tmp_path / "a.pt", ["left"], None)
    section["layers"][-1]["config"]["units"] = 2
    assert 'class "right" of ' in refused(section)

    torch.save({"dense.weight": torch.zeros(2)}, tmp_path / "a.pt")
    assert check(read({"neural_network": section})).classes == ("left", "right")


def test_a_training_run_has_classes_of_its_own(section: Section, tmp_path: Path):
    checkpoint(tmp_path / "a.pt", ["both", "left", "right"], None)
    section["checkpoints"] = {"load": str(tmp_path / "a.pt")}
    checked = check(read({"neural_network": section}))
    assert checked.classes == ("left", "right")
    assert checked.learned is None


def test_mask_values_of_a_checkpoint(segmentation: Section, tmp_path: Path):
    del segmentation["data"]["input_path"], segmentation["data"]["target_path"]
    checkpoint(tmp_path / "a.pt", [], [0, 255])
    segmentation["checkpoints"] = {"load": str(tmp_path / "a.pt")}
    learned = check(read({"neural_network": segmentation})).learned
    assert learned is not None
    assert (learned.classes, learned.mask_values) == (None, (0, 255))


# --- the rest


def test_resume_is_auto_or_nothing():
    check_resume(None)
    check_resume("auto")
    with pytest.raises(Refused) as refusal:
        check_resume("yes")
    assert str(refusal.value) == '--resume: "yes" does not fit\n    allowed: auto, or left out to start anew'


PROGRAM = """
import json, sys
from rml_core.check import check
from rml_core.run import read
check(read(sys.argv[1]))
print(sorted({"torch", "prefect", "dask", "distributed", "matplotlib", "h5py"} & set(sys.modules)))
"""


def test_checking_loads_nothing_heavy(classification: dict[str, Any], run_file: Callable[..., Path]):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, run_file(classification)], capture_output=True, text=True, check=False
    )
    assert (finished.stdout, finished.returncode) == ("[]\n", 0), finished.stderr


@pytest.mark.parametrize("function", ["Dice", "Jaccard", "Focal"])
def test_masks_that_are_read_as_values(segmentation: Section, function: str):
    del segmentation["data"]["target_is_mask"]
    segmentation["data"]["grayscale"] = True
    segmentation["loss"] = {"function": function}
    segmentation["layers"][0]["config"] |= {"filters": 1, "activation": "sigmoid"}
    assert check(read({"neural_network": segmentation})).warnings == (
        f"neural_network.data.target_is_mask: is not set: {function} takes the targets for values in [0, 1] (of 8 "
        "bits, 255 is 1); if they are classes, set it to true",
    )


@pytest.mark.parametrize("function", ["BCE", "MSE"])
def test_values_are_what_an_autoencoder_has(segmentation: Section, function: str):
    del segmentation["data"]["target_is_mask"]
    segmentation["data"]["grayscale"] = True
    segmentation["loss"] = {"function": function}
    segmentation["layers"][0]["config"] |= {"filters": 1, "activation": "sigmoid"}
    assert check(read({"neural_network": segmentation})).warnings == ()
