from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rml_core.checkpoints import native

Rml = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trained(classification: dict[str, Any], run_file: Callable[..., Path], rml: Rml) -> Callable[..., Path]:
    """Trains for two epochs, then changes the run file by `path=value`; gives it."""

    def train(changes: dict[str, Any]) -> Path:
        section = classification["neural_network"]
        section["num_epochs"] = 2
        assert rml("run", run_file(classification), "--untracked")[0] == 0
        for key, value in changes.items():
            *outer, name = key.split(".")
            place = section
            for part in outer:
                place = place[part]
            place[name] = value
        return run_file(classification)

    return train


def refusal(folder: Path, differences: str) -> str:
    return (
        f"{folder}/run.json: 1 problem\n\n"
        f"neural_network.checkpoints.save: {folder}/checkpoints/model_checkpoint_2.pt was saved by a run with other "
        f"settings: {differences}\n"
        "    put the settings back to resume, or run without --resume and with another folder to start anew\n"
    )


SGD = {"type": "SGD", "learning_rate": 0.5}
FLAT = [
    {"class_name": "Flatten", "config": {"name": "flat"}},
    {"class_name": "Dense", "config": {"name": "dense", "units": 2, "activation": "log_softmax"}},
]


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"optimizer": SGD}, 'optimizer.learning_rate was 0.01 and is 0.5; optimizer.lr_scheduler was {"type": '
         '"Exponential", "verbose": false, "gamma": 0.9} and is null; optimizer.type was "Adam" and is "SGD"'),
        ({"optimizer.lr_scheduler.gamma": 0.5}, "optimizer.lr_scheduler.gamma was 0.9 and is 0.5"),
        ({"layers": FLAT}, "layers"),
        (
            {"data.batch_size": 8, "data.transforms": [], "seed": 7},
            'data.batch_size was 4 and is 8; data.transforms was [{"random_horizontal_flip": 0.1}, '
            '{"normalize": {"mean": 0.3, "std": 0.5}}] and is []; seed was 0 and is 7',
        ),
        ({"loss": {"function": "BCE"}}, 'loss.function was "NLL" and is "BCE"'),
        ({"precision": "double"}, 'precision was "single" and is "double"'),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_name(
    trained: Callable[..., Path], rml: Rml, tmp_path: Path, changes: dict[str, Any], differences: str
):
    file = trained(changes)
    logs = (tmp_path / "out_train.txt").read_text()
    assert rml("run", file, "--untracked", "--resume", "auto") == (2, "", refusal(tmp_path, differences))
    assert (tmp_path / "out_train.txt").read_text() == logs


def test_other_files_are_refused(
    trained: Callable[..., Path], classification: dict[str, Any], pictures: Path, rml: Rml, tmp_path: Path
):
    before = classification["neural_network"]["data"]["input_path"]
    file = trained({"data.input_path": str(pictures / "test")})
    differences = f'data.input_path was "{before}" and is "{pictures}/test"'
    differences += "; there were 24 training samples and are 10"
    assert rml("run", file, "--untracked", "--resume", "auto") == (2, "", refusal(tmp_path, differences))


def test_other_classes_are_refused(
    classification: dict[str, Any], pictures: Path, run_file: Callable[..., Path], rml: Rml, tmp_path: Path
):
    section = classification["neural_network"]
    section.update(num_epochs=2)
    for role in ("train", "test"):
        for label in ("left", "right"):
            (tmp_path / role / label).mkdir(parents=True)
            for picture in (pictures / role / label).iterdir():
                (tmp_path / role / label / picture.name).write_bytes(picture.read_bytes())
    section["data"].update(input_path="train", test_input_path="test")
    assert rml("run", run_file(classification), "--untracked")[0] == 0
    for role in ("train", "test"):
        (tmp_path / role / "left").rename(tmp_path / role / "up")
    differences = "the classes were left, right and are right, up"
    refused = rml("run", run_file(classification), "--untracked", "--resume", "auto")
    assert refused == (2, "", refusal(tmp_path, differences))


def test_what_says_how_long_and_where_may_change(trained: Callable[..., Path], rml: Rml, tmp_path: Path):
    changes = {
        "num_epochs": 3,
        "outfile": "logs/more.txt",
        "device": "cpu",
        "debug": True,
        "data.test_output_path": "elsewhere",
        "data.preload": False,
        "data.test_batch_size": 3,
        "checkpoints": {"save": "checkpoints", "interval": 2, "keep": 1, "best": True},
    }
    status, output, errors = rml("run", trained(changes), "--untracked", "--resume", "auto")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == f"resuming {tmp_path}/checkpoints/model_checkpoint_2.pt (after epoch 2)"
    assert lines[1] == "classes left -> 0, right -> 1"
    assert [line.split("  ")[0] for line in lines[2:4]] == ["evaluation of epoch 2", "epoch 3/3"]
    assert [line.split()[0] for line in (tmp_path / "logs" / "more_test.txt").read_text().splitlines()] == ["2", "3"]
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == ["output_2.h5", "output_3.h5"]
    left = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.pt"))
    assert left == ["model_checkpoint_3.pt", "model_checkpoint_best.pt"]


def test_the_optimizer_goes_on_with_the_kernels_of_its_own_device(
    trained: Callable[..., Path], classification: dict[str, Any], rml: Rml, tmp_path: Path
):
    """torch has a fused Adagrad for the CPU alone: a run that moves from a GPU, or to one, must not take that over."""
    classification["neural_network"]["optimizer"] = {"type": "Adagrad"}
    file = trained({"num_epochs": 3})
    path = native.epoch_path(tmp_path / "checkpoints", 2)
    saved = native.read(path, "")
    saved["optimizer"]["param_groups"][0]["fused"] = None
    native.write(saved, path)
    assert rml("run", file, "--untracked", "--resume", "auto")[0] == 0
    after = native.read(native.epoch_path(tmp_path / "checkpoints", 3), "")["optimizer"]
    assert after["param_groups"][0]["fused"]
    steps = [state["step"].item() for state in after["state"].values()]
    assert set(steps) == {3 * 6.0}


def test_a_network_in_a_file_is_the_network_inline(trained: Callable[..., Path], classification: Any, rml: Rml):
    layers = copy.deepcopy(classification["neural_network"]["layers"])
    file = trained({"layers": "network.json", "num_epochs": 3})
    # What `json.dump(model.to_json(), file)` leaves is a string.
    (file.parent / "network.json").write_text(json.dumps(json.dumps(layers)))
    assert rml("run", file, "--untracked", "--resume", "auto")[0] == 0
    assert rml("run", file, "--untracked", "--resume", "auto")[0] == 0
    (file.parent / "network.json").write_text(json.dumps(FLAT))
    status, _, errors = rml("run", file, "--untracked", "--resume", "auto")
    assert status == 2
    assert errors == refusal(file.parent, "layers").replace("checkpoint_2", "checkpoint_3")


def test_nothing_to_resume(classification: dict[str, Any], run_file: Callable[..., Path], rml: Rml, tmp_path: Path):
    classification["neural_network"]["num_epochs"] = 1
    status, output, errors = rml("run", run_file(classification), "--untracked", "--resume", "auto")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == f"nothing to resume in {tmp_path}/checkpoints: the run starts anew"
    assert lines[1] == "classes left -> 0, right -> 1"
    assert lines[2].startswith("epoch 1/1  loss ")


def test_the_run_file_may_say_so_itself(trained: Callable[..., Path], rml: Rml, tmp_path: Path):
    file = trained({"checkpoints": {"save": "checkpoints", "resume": "AUTO"}, "num_epochs": 3})
    status, output, errors = rml("run", file, "--untracked")
    assert (status, errors) == (0, "")
    assert output.splitlines()[0] == f"resuming {tmp_path}/checkpoints/model_checkpoint_2.pt (after epoch 2)"
    section = json.loads(file.read_text())
    section["neural_network"]["checkpoints"]["resume"] = "always"
    file.write_text(json.dumps(section))
    assert rml("run", file, "--untracked") == (
        2,
        "",
        f'{file}: 1 problem\n\nneural_network.checkpoints.resume: unknown value "always"\n    allowed: auto\n',
    )


def test_no_folder_to_resume_from(
    classification: dict[str, Any], run_file: Callable[..., Path], rml: Rml, tmp_path: Path
):
    classification["neural_network"].update(num_epochs=1, checkpoints={"best": True})
    status, output, errors = rml("run", run_file(classification), "--untracked", "--resume", "auto")
    assert status == 0
    assert errors == "nothing to resume: checkpoints.save is not set, or the run does not train\n"
    lines = output.splitlines()
    assert lines[0] == "the weights will not be kept: checkpoints.save is not set"
    assert lines[2].startswith("epoch 1/1  loss ")
    assert not list(tmp_path.rglob("*.pt"))


def test_resume_takes_auto(trained: Callable[..., Path], rml: Rml):
    file = trained({})
    assert rml("run", file, "--untracked", "--resume", "always") == (
        2,
        "",
        f'{file}: 1 problem\n\n--resume: "always" does not fit\n    allowed: auto, or left out to start anew\n',
    )


def test_a_damaged_checkpoint_is_passed_over(trained: Callable[..., Path], rml: Rml, tmp_path: Path):
    file = trained({"num_epochs": 3})
    folder = tmp_path / "checkpoints"
    last = native.epoch_path(folder, 2)
    last.write_bytes(last.read_bytes()[:-100])
    status, output, errors = rml("run", file, "--untracked", "--resume", "auto")
    assert status == 0
    assert errors == f"passed over: {last} is cut short\n"
    assert output.splitlines()[0] == f"resuming {folder}/model_checkpoint_1.pt (after epoch 1)"


def test_a_finished_run_is_evaluated_once_more(trained: Callable[..., Path], rml: Rml, tmp_path: Path):
    file = trained({})
    before = [line.split() for line in (tmp_path / "out_test.txt").read_text().splitlines()]
    assert rml("run", file, "--untracked", "--resume", "auto")[0] == 0
    after = [line.split() for line in (tmp_path / "out_test.txt").read_text().splitlines()]
    assert [(line[0], *line[2:]) for line in after] == [(line[0], *line[2:]) for line in before]


def test_a_resumed_run_does_not_load(trained: Callable[..., Path], rml: Rml, tmp_path: Path):
    """`resume` outranks `load`."""
    load = {"save": "checkpoints", "load": "checkpoints/model_checkpoint_1.pt"}
    status, output, _ = rml("run", trained({"checkpoints": load}), "--untracked", "--resume", "auto")
    assert status == 0
    assert output.splitlines()[0] == f"resuming {tmp_path}/checkpoints/model_checkpoint_2.pt (after epoch 2)"
    assert not [line for line in output.splitlines() if "Load" in line]
