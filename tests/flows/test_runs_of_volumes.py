"""Whole runs on volumes: through a network and back into one file, from every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]
Section = dict[str, Any]

IDENTITY = [{"class_name": "Activation", "config": {"activation": "linear"}}]
RANDOM = np.random.default_rng(0)
SHAPE = (13, 21, 30)
BRICKS = {"name": "bricks", "sizes": [8, 8, 8]}


def save_npy(folder: Path, array: np.ndarray) -> Section:
    np.save(folder / "volume.npy", array)
    return {"input_type": "numpy", "test_input_path": "volume.npy"}


def save_hdf5(**options: Any) -> Callable[[Path, np.ndarray], Section]:
    def save(folder: Path, array: np.ndarray) -> Section:
        with h5py.File(folder / "volumes.h5", "w") as file:
            file.create_dataset("other", data=np.zeros(3))
            file.create_dataset("scans/one", data=array, **options)
        return {"input_type": "hdf5", "test_input_path": "volumes.h5:/scans/one"}

    return save


def save_zarr(folder: Path, array: np.ndarray) -> Section:
    import zarr

    chunks = (*array.shape[:-3], 5, 9, 16)
    zarr.create_array(str(folder / "volume.zarr"), shape=array.shape, dtype=array.dtype, chunks=chunks)[...] = array
    return {"input_type": "zarr", "test_input_path": "volume.zarr"}


FORMATS: dict[str, Callable[[Path, np.ndarray], Section]] = {
    "npy": save_npy,
    "hdf5": save_hdf5(),
    "gzip": save_hdf5(chunks=(5, 9, 16), compression="gzip", shuffle=True),
    "zarr": save_zarr,
}


def values(dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    kind = np.dtype(dtype)
    return RANDOM.normal(size=shape).astype(kind) if kind.kind == "f" else RANDOM.integers(0, 100, shape).astype(kind)


def through(rml: Rml, run_file: RunFile, data: Section, layers: Any = None, **section: Any) -> str:
    """Run it; what was said."""
    data = {"hdf5_outfile": "prediction.h5", "slicers": [BRICKS], "test_batch_size": 7, **data}
    whole = {"layers": layers or IDENTITY, "data": data, **section}
    status, said, problems = rml("run", run_file({"neural_network": whole}), "--untracked")
    assert (status, problems) == (0, "")
    return said


def datasets(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][...] for name in file}


@pytest.mark.parametrize(
    ("form", "dtype", "preload"),
    [("npy", "f4", False), ("npy", "u1", True), ("hdf5", "i2", False), ("gzip", "u1", True), ("gzip", "f8", False),
     ("zarr", "f2", True), ("zarr", "i8", False)],
)  # fmt: skip
def test_a_volume_comes_back_to_the_bit(
    form: str, dtype: str, preload: bool, rml: Rml, run_file: RunFile, tmp_path: Path
):
    volume = values(dtype)
    said = through(rml, run_file, {**FORMATS[form](tmp_path, volume), "preload": preload})
    ((name, found),) = datasets(tmp_path / "prediction.h5").items()
    assert (name, found.dtype) == ("bricks", np.float32)
    np.testing.assert_array_equal(found, volume[None].astype(np.float32))
    where, *written = said.splitlines()
    assert where.startswith("evaluation of epoch 1  ")
    assert written[0].startswith("done in ")
    assert written[1:] == [f"  {tmp_path}/prediction.h5", f"  {tmp_path}/prediction_sections.png"]
    assert cv2.imread(str(tmp_path / "prediction_sections.png")) is not None
    assert {each.name for each in tmp_path.iterdir() if "prediction" in each.name} == {
        "prediction.h5",
        "prediction_sections.png",
    }


def test_sets_of_two_orientations_padded_transposed_and_with_channels(rml: Rml, run_file: RunFile, tmp_path: Path):
    volume = values("f4", (2, *SHAPE))
    slicers = [
        {"name": "xz", "sizes": [8, 1, 8], "padding": 3, "transpose": True},
        {"sizes": [1, 8, 8], "padded_sizes": [1, 9, 16], "padding_mode": "context"},
        {"name": "rest", "sizes": [1, 8, 8], "discard_remainders": True},
        {"name": "every third", "sizes": [1, 21, 30], "strides": [3, 21, 30]},
    ]
    through(rml, run_file, {**save_npy(tmp_path, volume), "slicers": slicers})
    found = datasets(tmp_path / "prediction.h5")
    assert set(found) == {"xz", "slice_set_2", "rest", "every third"}
    np.testing.assert_array_equal(found["xz"], volume)
    np.testing.assert_array_equal(found["slice_set_2"], volume)
    np.testing.assert_array_equal(found["rest"], volume[:, :, :16, :24])
    gaps = np.arange(13) % 3 > 0
    np.testing.assert_array_equal(found["every third"], np.where(gaps[:, None, None], np.nan, volume))


@pytest.mark.parametrize("blend", ["mean", "gaussian"])
def test_overlapping_slices_come_back_as_they_were(blend: str, rml: Rml, run_file: RunFile, tmp_path: Path):
    volume = values("f4")
    slicers = [{"sizes": [8, 8, 8], "strides": [4, 3, 5]}]
    through(rml, run_file, {**save_npy(tmp_path, volume), "slicers": slicers, "overlap_blend": blend})
    found = datasets(tmp_path / "prediction.h5")["slice_set_1"]
    np.testing.assert_allclose(found[0], volume, rtol=1e-6, atol=1e-6)


def test_tiles_of_images_and_lines_of_signals(rml: Rml, run_file: RunFile, tmp_path: Path):
    for shape, sizes in (((30, 41), [8, 8]), ((100,), [9])):
        volume = values("f4", shape)
        through(rml, run_file, {**save_npy(tmp_path, volume), "slicers": [{"name": "set", "sizes": sizes}]})
        np.testing.assert_array_equal(datasets(tmp_path / "prediction.h5")["set"], volume[None])


def test_classes_and_half_precision(rml: Rml, run_file: RunFile, tmp_path: Path):
    volume = values("f4", (3, *SHAPE))
    data = save_npy(tmp_path, volume)
    through(rml, run_file, {**data, "hdf5_output": "argmax"})
    found = datasets(tmp_path / "prediction.h5")["bricks"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], volume.argmax(0))
    through(rml, run_file, {**data, "hdf5_precision": "half"})
    np.testing.assert_array_equal(datasets(tmp_path / "prediction.h5")["bricks"], volume.astype(np.float16))


@pytest.mark.filterwarnings("error")
def test_figures_of_the_assembled_volume_count_each_voxel_once(rml: Rml, run_file: RunFile, tmp_path: Path):
    """Half of the voxels are in two slices: those over slices count these twice."""
    volume, target = values("f4"), values("f4")
    data = {**save_npy(tmp_path, volume), "target_type": "numpy", "test_target_path": "target.npy"}
    np.save(tmp_path / "target.npy", target)
    slicers = [{"name": "overlapping", "sizes": [8, 8, 8], "strides": [8, 4, 8]}, BRICKS]
    said = through(rml, run_file, {**data, "slicers": slicers}, loss={"function": "MSE"}, outfile="out.txt")
    (row,) = map(json.loads, (tmp_path / "out_metrics.jsonl").read_text().splitlines())
    errors = volume.astype(np.float64) - target
    for name in ("overlapping", "bricks"):
        assert row["assembled"][name]["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
        assert row["assembled"][name]["rmse"] == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-6)
    assert row["mae"] != pytest.approx(row["assembled"]["bricks"]["mae"], rel=1e-6)
    assert len((tmp_path / "out_test.txt").read_text().splitlines()) == 1
    assert f"bricks mae {np.abs(errors).mean():.4g}" in said


def test_dice_of_the_assembled_volume(rml: Rml, run_file: RunFile, tmp_path: Path):
    scores = RANDOM.random((2, *SHAPE)).astype(np.float32)
    mask = RANDOM.integers(0, 2, SHAPE).astype(np.uint8) * 7
    data = {**save_npy(tmp_path, scores), "target_type": "numpy", "test_target_path": "mask.npy"}
    np.save(tmp_path / "mask.npy", mask)
    said = through(
        rml,
        run_file,
        {**data, "target_is_mask": True, "slicers": [{"name": "tiles", "sizes": [1, 8, 8], "strides": [1, 5, 8]}]},
        loss={"function": "Dice", "source": "logits"},
        outfile="out.txt",
    )
    (row,) = map(json.loads, (tmp_path / "out_metrics.jsonl").read_text().splitlines())
    found, truth = scores.argmax(0), mask // 7
    dice = [2 * np.sum((found == c) & (truth == c)) / (np.sum(found == c) + np.sum(truth == c)) for c in (0, 1)]
    assert row["assembled"]["tiles"]["accuracy"] == pytest.approx(np.mean(dice), rel=1e-9)
    assert f"tiles {np.mean(dice):.4f}" in said


@pytest.mark.parametrize("step", [1, 255])
def test_classes_and_what_they_were_in_the_mask(rml: Rml, run_file: RunFile, tmp_path: Path, step: int):
    mask = RANDOM.integers(0, 2, SHAPE).astype(np.uint8) * step
    scores = np.stack([mask == 0, mask != 0]).astype("f4")
    data = {**save_npy(tmp_path, scores), "target_type": "numpy", "test_target_path": "mask.npy"}
    np.save(tmp_path / "mask.npy", mask)
    data |= {"target_is_mask": True, "hdf5_output": "argmax"}
    through(rml, run_file, data, loss={"function": "Dice", "source": "logits"})
    with h5py.File(tmp_path / "prediction.h5") as file:
        found, attributes = file["bricks"][0], dict(file.attrs)
    if step == 1:
        assert "classes" not in attributes
    else:
        assert attributes["classes"].tolist() == [0, 255]
        found = attributes["classes"][found]
    np.testing.assert_array_equal(found, mask)


TRAINING: Section = {
    "layers": [{"class_name": "Conv3D", "config": {"filters": 1, "kernel_size": 3, "padding": "same"}}],
    "outfile": "out.txt",
    "loss": {"function": "MSE"},
    "optimizer": {"type": "SGD", "learning_rate": 0.1},
    "checkpoints": {"save": "checkpoints"},
}


def test_while_training_the_newest_prediction_stays(rml: Rml, run_file: RunFile, tmp_path: Path):
    """After two epochs it is what the second checkpoint predicts, which the file says."""
    np.save(tmp_path / "volume.npy", values("f4"))
    files = {f"{role}{side}_path": "volume.npy" for role in ("", "test_") for side in ("input", "target")}
    data = {"type": "numpy", **files, "slicers": [BRICKS], "batch_size": 8, "preload": True}
    said = through(rml, run_file, data, **{**TRAINING, "num_epochs": 2})
    assert [line.partition("  ")[0] for line in said.splitlines() if line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    rows = [json.loads(line) for line in (tmp_path / "out_metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row["assembled"]["bricks"]["rmse"] > 0 for row in rows)
    found = datasets(tmp_path / "prediction.h5")["bricks"]
    with h5py.File(tmp_path / "prediction.h5") as file:
        attributes = dict(file.attrs)
    assert attributes["checkpoint"] == str(tmp_path / "checkpoints" / "model_checkpoint_2.pt")
    assert json.loads(attributes["run_file"])["neural_network"]["num_epochs"] == 2

    again = {"input_type": "numpy", "test_input_path": "volume.npy", "hdf5_outfile": "again.h5"}
    load = {"load": "checkpoints/model_checkpoint_2.pt"}
    through(rml, run_file, again, TRAINING["layers"], checkpoints=load)
    np.testing.assert_array_equal(datasets(tmp_path / "again.h5")["bricks"], found)
