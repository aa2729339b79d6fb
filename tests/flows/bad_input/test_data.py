"""Data that cannot be used: the folder or the file is named, with what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Rml = Callable[..., tuple[int, str, str]]

CLASSES = "classes left -> 0, right -> 1\n"


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the files below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(path: Path) -> None:
    """Overwrite some of the pixels of a PNG file."""
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])


@pytest.mark.parametrize("preload", [True, False])
def test_a_folder_that_does_not_exist(own: dict[str, Any], refuses: Any, preload: bool, tmp_path: Path):
    own["data"] |= {"input_path": "trian", "test_input_path": "somewhere/test", "preload": preload}
    (tmp_path / "run.json").touch()
    refuses(
        own,
        f"neural_network.data.input_path: {tmp_path}/trian does not exist\n"
        "    allowed: a file or a folder\n"
        f"    {tmp_path} has run.json, test, train",
        f"neural_network.data.test_input_path: {tmp_path}/somewhere/test does not exist\n"
        "    allowed: a file or a folder\n"
        f"    {tmp_path} has run.json, test, train",
    )


def test_a_folder_without_images(own: dict[str, Any], refuses: Any, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    own["data"] |= {"input_path": "empty", "test_input_path": "texts"}
    refuses(
        own,
        f"neural_network.data.input_path: {tmp_path}/empty has no images: it is empty\n"
        "    name the folder that has the images, or put them there",
        f"neural_network.data.test_input_path: {tmp_path}/texts has no images, only other files: 1 .txt\n"
        "    name the folder that has the images, or put them there",
    )


@pytest.mark.parametrize("preload", [True, False])
def test_a_file_that_is_no_image(own: dict[str, Any], refuses: Any, preload: bool, tmp_path: Path):
    own["data"]["preload"] = preload
    (tmp_path / "train" / "left" / "img3.png").write_bytes(b"no image")
    (tmp_path / "train" / "right" / "img1.png").write_bytes(b"")
    cut_short = tmp_path / "train" / "right" / "img2.png"
    cut_short.write_bytes(cut_short.read_bytes()[:-30])
    refuses(
        own,
        f"neural_network.data.input_path: {tmp_path}/train/left/img3.png: cannot be decoded: not an image that "
        "OpenCV reads, or damaged",
        f"neural_network.data.input_path: {tmp_path}/train/right/img1.png: cannot be decoded: the file is empty",
        f"neural_network.data.input_path: {cut_short}: cannot be decoded: not an image that OpenCV reads, or damaged",
    )


@pytest.mark.parametrize(
    ("preload", "resize", "phase"),
    [(True, False, "load training"), (True, True, "transform training"), (False, False, "train epoch 1")],
)
def test_a_file_that_is_damaged_behind_its_header(
    own: dict[str, Any], run: Rml, preload: bool, resize: bool, phase: str, tmp_path: Path
):
    """Its size can be read: only decoding shows the damage."""
    own["data"]["preload"] = preload
    if resize:
        own["data"]["transforms"].insert(0, {"resize": [12, 12]})
    damaged = tmp_path / "train" / "left" / "img3.png"
    damage(damaged)
    why = "cannot be decoded: not an image that OpenCV reads, or damaged"
    output = CLASSES if phase == "train epoch 1" else ""
    assert run(own) == (1, output, f"{phase}: {damaged}: {why}\n")


def test_a_run_that_cannot_load_its_data_leaves_the_logs_of_the_one_before(
    own: dict[str, Any], run: Rml, tmp_path: Path
):
    assert run(own)[0] == 0
    before = contents(tmp_path)
    damaged = tmp_path / "train" / "left" / "img3.png"
    damage(damaged)
    assert run(own)[0] == 1
    after = contents(tmp_path)
    assert after == before | {"train/left/img3.png": damaged.read_bytes()}


def test_sizes_that_differ(own: dict[str, Any], refuses: Any, run: Rml, tmp_path: Path):
    for name in ("train", "test"):
        cv2.imwrite(str(tmp_path / name / "left" / "img3.png"), np.zeros((10, 14), np.uint8))

    def differ(key: str, batch_key: str, folder: Path) -> str:
        return (
            f"neural_network.data.{key}: sizes differ: {folder}/left/img0.png gives 12 x 12 (width x height), "
            f"{folder}/left/img3.png 14 x 10 (width x height)\n"
            "    allowed: samples of one size\n"
            '    add a transform that makes them equal, as {"resize": [Sx, Sy]}, '
            f"or set {batch_key} to 1"
        )

    refuses(
        own,
        differ("input_path", "batch_size", tmp_path / "train"),
        differ("test_input_path", "test_batch_size", tmp_path / "test"),
    )
    own["data"]["transforms"].insert(0, {"resize": [12, 12]})
    assert run(own)[::2] == (0, "")


def test_inputs_without_partner(masks: dict[str, Any], refuses: Any, tmp_path: Path):
    (tmp_path / "masks" / "3.png").unlink()
    (tmp_path / "test_inputs" / "0.png").unlink()
    remedy = "    give both the same name (suffixes may differ), or as many of one as of the other"
    refuses(
        masks,
        f"neural_network.data.target_path: 8 inputs in {tmp_path}/inputs and 7 targets in {tmp_path}/masks do not "
        f"pair; inputs without a target: 3.png\n{remedy}",
        f"neural_network.data.test_target_path: 3 inputs in {tmp_path}/test_inputs and 4 targets in "
        f"{tmp_path}/test_masks do not pair; targets without an input: 0.png\n{remedy}",
    )


def test_partners_of_other_names_are_paired_and_that_is_said(masks: dict[str, Any], run: Rml, tmp_path: Path):
    (tmp_path / "masks" / "3.png").rename(tmp_path / "masks" / "3b.png")
    status, _, errors = run(masks)
    said = "warning: inputs and targets have different names: they are paired in sorted order, 3.png with 3b.png\n"
    assert (status, errors) == (0, said)


def test_a_test_class_unseen_in_training(own: dict[str, Any], refuses: Any, tmp_path: Path):
    shutil.copytree(tmp_path / "test" / "left", tmp_path / "test" / "middle")
    refuses(
        own,
        f'neural_network.data.test_input_path: class "middle" of {tmp_path}/test/middle/img0.png was not there in '
        "training\n"
        "    allowed: the classes of training: left, right\n"
        "    leave these files out, train with this class, or set test_tag where the class is another folder",
    )


def test_values_of_masks_that_are_no_classes(masks: dict[str, Any], run: Rml, tmp_path: Path):
    mask = cv2.imread(str(tmp_path / "test_masks" / "1.png"), cv2.IMREAD_GRAYSCALE)
    mask[0, :2] = 7, 9
    cv2.imwrite(str(tmp_path / "test_masks" / "1.png"), mask)
    assert run(masks) == (
        1,
        "mask values 0 -> 0, 255 -> 1\n",
        f"load test: {tmp_path}/test_masks/1.png: value 7 stands for no class: training masks have 0, 255; nor do 9; "
        "mend it, or train on masks that have this value\n",
    )
    cv2.imwrite(str(tmp_path / "masks" / "1.png"), mask)
    assert run(masks) == (
        1,
        "",
        "load training: the masks have 4 distinct values (0, 7, 9, 255), the network has one output, which tells two "
        f"classes apart; 9 is in {tmp_path}/masks/1.png; give it an output for each value, or mend the masks; if the "
        "values number objects, make them 0 and 1 first\n",
    )
