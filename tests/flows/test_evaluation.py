"""A checkpoint on new data: the checkpoint alone, or with a run file; and every contradiction at once."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from flows.evaluation import Given, evaluating, evaluation, figures_of
from flows.phases import as_it_is, execute
from rml_core.check import check
from rml_core.checkpoints import native
from rml_core.config.problem import Refused
from rml_core.run import read


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two epochs on slices of a volume of two classes (mask values 0 and 255): the run file, its folder, and its
    figures."""
    folder = tmp_path_factory.mktemp("trained")
    random = np.random.default_rng(0)
    for name, depth in (("train", 8), ("test", 4), ("new", 6)):
        mask = (random.random((16, 16, depth)) < 0.5).astype(np.uint8)
        np.save(folder / f"{name}.npy", (mask + 0.1 * random.random(mask.shape)).astype(np.float32))
        np.save(folder / f"{name}_mask.npy", mask * 255)
    section = {
        "outfile": "out.txt",
        "num_epochs": 2,
        "debug": True,
        "data": {
            "type": "numpy",
            "target_is_mask": True,
            "input_path": "train.npy",
            "target_path": "train_mask.npy",
            "test_input_path": "test.npy",
            "test_target_path": "test_mask.npy",
            "test_output_path": "predictions",
            "hdf5_outfile": "assembled.h5",
            "slicers": [{"name": "xy", "sizes": [16, 16, 1]}],
        },
        "layers": [{"class_name": "Conv2D", "config": {"filters": 1, "kernel_size": 1, "activation": "sigmoid"}}],
        "optimizer": {"type": "Adam", "learning_rate": 0.1},
        "loss": {"function": "BCE"},
        "checkpoints": {"save": "checkpoints"},
    }
    outcome = execute(check(read({"neural_network": section}, folder)), as_it_is)
    return {"section": section, "folder": folder, "figures": outcome.history[-1]}


def checkpoint(trained: dict[str, Any]) -> str:
    return str(native.epoch_path(trained["folder"] / "checkpoints", 2))


def test_a_checkpoint_alone_says_what_it_is(trained: dict[str, Any], tmp_path: Path):
    """Its figures are those of its own training where the data are the same; the values of masks are known."""
    test = {"test_input_path": "test.npy", "test_target_path": "test_mask.npy"}
    checked = evaluation(Given(checkpoint(trained), **test), base=trained["folder"])
    assert (checked.training, checked.run.file.outfile, checked.run.file.data.hdf5_outfile) == (None, None, None)
    figures = figures_of(execute(checked, as_it_is))
    assert figures["loss"] == trained["figures"]["test_loss"]
    assert figures["classes"] == [0, 255]
    for key in ("accuracy", "dice", "recall"):
        assert figures[key] == trained["figures"][key]


def test_new_data_without_targets_are_predicted_where_it_was_asked(trained: dict[str, Any], tmp_path: Path):
    before = {path: path.stat().st_mtime_ns for path in trained["folder"].rglob("*") if path.is_file()}
    given = Given(
        checkpoint(trained),
        test_input_path=str(trained["folder"] / "new.npy"),
        test_batch_size=2,
        outfile="new.txt",
        hdf5_outfile="out/new.h5",
    )
    outcome = execute(evaluation(given, base=tmp_path), as_it_is)
    assert np.isnan(figures_of(outcome)["loss"])
    with h5py.File(tmp_path / "out" / "new.h5") as file:
        assert file["xy"].shape == (1, 16, 16, 6)
        weights = native.read(Path(checkpoint(trained)), "")["network"]
        weight, bias = (float(weights[key].squeeze()) for key in sorted(weights, reverse=True))
        values = np.load(trained["folder"] / "new.npy") * weight + bias
        np.testing.assert_allclose(file["xy"][0], 1 / (1 + np.exp(-values)), atol=1e-6)
    assert (tmp_path / "new_test.txt").exists()
    # Nothing of the training was touched.
    assert before == {path: path.stat().st_mtime_ns for path in trained["folder"].rglob("*") if path.is_file()}


def test_a_run_file_that_trains_keeps_its_places_and_one_that_does_not_writes_where_it_says(trained: dict[str, Any]):
    section = trained["section"]
    made = evaluating(section, Given("champion.pt"))
    assert made["checkpoints"] == {"load": "champion.pt"}
    assert not {"outfile", "optimizer", "num_epochs", "debug"} & made.keys()
    assert not {"input_path", "target_path", "test_output_path", "hdf5_outfile"} & made["data"].keys()
    assert made["data"]["test_target_path"] == "test_mask.npy"
    alone = copy.deepcopy(section)
    del alone["data"]["input_path"], alone["data"]["target_path"]
    made = evaluating(alone, Given("champion.pt", test_input_path="new.npy"))
    assert (made["outfile"], made["data"]["hdf5_outfile"]) == ("out.txt", "assembled.h5")
    assert "test_target_path" not in made["data"]
    flips = [{"random_horizontal_flip": 0.5}, {"normalize": {"mean": 1}}]
    section = {**section, "data": {**section["data"], "transforms": flips}}
    assert evaluating(section, Given("a.pt", hdf5_outfile="a.h5"))["data"]["transforms"] == flips[1:]


@pytest.mark.parametrize(
    ("given", "section", "message"),
    [
        (
            Given(test_target_path="masks", outfile=""),
            None,
            'outfile: "" does not fit\n'
            "    allowed: a path, or left out\n"
            "checkpoint: is missing: nothing says which weights are to be evaluated\n"
            "    name a file that checkpoints.save left\n"
            "test_input_path: is missing: there is nothing to evaluate on\n"
            "    name a file or a folder with test samples\n"
            'test_target_path: "masks" stands without test_input_path, whose targets it has\n'
            "    give both, or neither",
        ),
        (
            Given(test_input_path="new"),
            {"data": {"type": "numpy"}},
            "checkpoint: is missing: nothing says which weights are to be evaluated\n"
            "    name a file that checkpoints.save left, here or as checkpoints.load",
        ),
        (
            Given("FOLDER/weights.pt", test_input_path="new"),
            None,
            "checkpoint: FOLDER/weights.pt has weights alone: it does not say which network they are of\n"
            "    give the run file as neural_network, too",
        ),
        (
            Given("none.pt", test_input_path="new"),
            None,
            "checkpoint: FOLDER/none.pt does not exist\n    allowed: a file with weights",
        ),
    ],
)
def test_contradictions_are_said_at_once(given: Given, section: dict[str, Any] | None, message: str, tmp_path: Path):
    torch.save({"dense.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    if given.checkpoint is not None:
        given = Given(**{**vars(given), "checkpoint": given.checkpoint.replace("FOLDER", str(tmp_path))})
    with pytest.raises(Refused) as refused:
        evaluation(given, section, tmp_path)
    assert str(refused.value) == message.replace("FOLDER", str(tmp_path))


def test_problems_of_the_run_name_the_parameters(trained: dict[str, Any]):
    given = Given(checkpoint(trained), test_input_path="nowhere.npy", test_batch_size=0)
    with pytest.raises(Refused) as refused:
        evaluation(given, base=trained["folder"])
    assert [problem.where for problem in refused.value.problems] == ["test_batch_size"]
    with pytest.raises(Refused) as refused:
        evaluation(Given(checkpoint(trained), test_input_path="nowhere.npy"), base=trained["folder"])
    assert [problem.where for problem in refused.value.problems] == ["test_input_path"]


def test_labels_are_those_of_the_training(classification: dict[str, Any], pictures: Path, tmp_path: Path):
    """Also where the new folder has samples of one class alone."""
    section = classification["neural_network"]
    section["num_epochs"] = 1
    execute(check(read(classification, tmp_path)), as_it_is)
    given = Given("checkpoints/model_checkpoint_1.pt", test_input_path=str(pictures / "test"))
    checked = evaluation(given, base=tmp_path)
    assert checked.classes == ("left", "right")
    outcome = execute(checked, as_it_is)
    expected = [json.loads(line) for line in (tmp_path / "out_metrics.jsonl").read_text().splitlines()]
    assert figures_of(outcome)["loss"] == pytest.approx(expected[0]["test_loss"], rel=1e-6)
    assert figures_of(outcome)["support"] == expected[0]["support"]


def test_a_worker_does_not_look_for_relative_paths_in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "id")
    with pytest.raises(Refused) as refused:
        evaluation(Given("champion/champion.pt", "pictures/test", "/targets"))
    remedy = "give absolute paths, or base: the folder they are against"
    assert str(refused.value) == "\n".join(
        f'{name}: "{path}" is relative, and nothing says to which folder\n    {remedy}'
        for name, path in (("checkpoint", "champion/champion.pt"), ("test_input_path", "pictures/test"))
    )
