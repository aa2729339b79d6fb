"""What is submitted to the deployments that evaluate and retrain: their parameters, and every problem of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.parameters import KINDS, kind_of
from flows.retrain import plan_of
from flows.submission import Given, parameters_of
from rml_core.config.problem import Refused

Run = dict[str, Any]


def problems(mapping: Any, deployment: str, folder: Path | None = None, **options: Any) -> str:
    with pytest.raises(Refused) as refused:
        parameters_of(Given("x", mapping, folder or Path.cwd()), deployment, **options)
    return str(refused.value)


@pytest.mark.parametrize(
    ("deployment", "module", "name"),
    [
        ("train", "flows.rml", "rml"),
        ("evaluate", "flows.evaluate", "evaluate"),
        ("retrain", "flows.retrain", "retrain"),
        ("retrain-digits", "flows.retrain", "retrain"),
    ],
)
def test_the_parameters_are_those_of_the_flow(deployment: str, module: str, name: str):
    flow = getattr(__import__(module, fromlist=[name]), name)
    assert set(kind_of(deployment).names) == set(inspect.signature(flow.fn).parameters)
    assert kind_of(deployment) in KINDS.values()


def test_an_evaluation_is_checked(tmp_path: Path):
    assert problems({"checkpoint": "c.pt"}, "evaluate", tmp_path) == (
        "test_input_path: is missing: there is nothing to evaluate on\n"
        "    name a file or a folder with test samples\n"
        f"checkpoint: {tmp_path}/c.pt does not exist\n"
        "    allowed: a file with weights"
    )
    assert problems({"checkpoint": 5, "test_batch_size": 0, "test_input_path": "x"}, "evaluate", tmp_path) == (
        "checkpoint: 5 is not a string\ntest_batch_size: 0 does not fit\n    allowed: an integer, 1 or more"
    )


def test_a_run_file_beside_a_checkpoint_is_read_as_the_worker_will_read_it(
    classification: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("NOWHERE", raising=False)
    section = classification["neural_network"]
    del section["data"]["input_path"]
    section |= {"outfile": "$NOWHERE/out.txt", "checkpoints": {"load": "c.pt"}}
    assert problems(classification, "evaluate", tmp_path).startswith(
        'neural_network.outfile: "$NOWHERE/out.txt": $NOWHERE does not expand on a worker\n'
    )


def test_a_retraining_is_checked(classification: Run, run_file: Callable[..., Path], tmp_path: Path):
    run_file(classification)
    made = parameters_of(Given("x", {"run_file": "run.json", "champion": "best"}, tmp_path), "retrain")
    assert made.parameters == {"run_file": str(tmp_path / "run.json"), "champion": str(tmp_path / "best")}
    assert problems({"run_file": "none.json", "margin": "x"}, "retrain", tmp_path) == (
        f'margin: "x" does not fit\n    allowed: a number\n{tmp_path}/none.json: no such file or directory'
    )
    assert problems({}, "retrain") == (
        "run_file: is missing\n    give the file's path, or its content as neural_network"
    )
    elsewhere = parameters_of(
        Given("x", {"run_file": "run.json", "champion": "c", "base": "b"}, tmp_path), "retrain", with_data=False
    )
    assert elsewhere.parameters == {
        "run_file": str(tmp_path / "run.json"),
        "champion": str(tmp_path / "b/c"),
        "base": str(tmp_path / "b"),
    }
    run_file(classification, "RML_run.json")
    named = parameters_of(Given("x", {"run_file": "RML_run.json"}, tmp_path), "retrain")
    assert named.parameters == {"run_file": str(tmp_path / "RML_run.json")}
    scheduled = parameters_of(Given("x", {"if_unchanged": "train"}, tmp_path), "retrain-digits")
    assert scheduled.parameters == {"if_unchanged": "train"}


@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize(
    ("deployment", "changes", "message"),
    [
        (
            "retrain",
            {"test_input_path": None, "test_output_path": None},
            "neural_network.data.test_input_path: is missing: champion and challenger are compared on test samples",
        ),
        (
            "retrain",
            {"test_input_path": None, "test_output_path": None, "validation_split": 0.2},
            "neural_network.data.validation_split: holds other samples out as the data grow, some of which the "
            "champion was trained on\n    keep test samples apart, and name them with test_input_path",
        ),
        (
            "evaluate",
            {},
            "checkpoint: is missing: nothing says which weights are to be evaluated\n"
            "    name a file that checkpoints.save left, here or as checkpoints.load",
        ),
    ],
)
def test_what_needs_no_data_is_told_wherever_they_are(
    classification: Run, tmp_path: Path, with_data: bool, deployment: str, changes: Run, message: str
):
    data = classification["neural_network"]["data"] | changes
    classification["neural_network"]["data"] = {key: value for key, value in data.items() if value is not None}
    assert problems(classification, deployment, tmp_path, with_data=with_data) == message


@pytest.mark.parametrize("with_data", [True, False])
def test_an_evaluation_of_nothing_is_told_wherever_the_data_are(tmp_path: Path, with_data: bool):
    assert problems({"test_target_path": "masks"}, "evaluate", tmp_path, with_data=with_data) == (
        "checkpoint: is missing: nothing says which weights are to be evaluated\n"
        "    name a file that checkpoints.save left\n"
        "test_input_path: is missing: there is nothing to evaluate on\n"
        "    name a file or a folder with test samples\n"
        'test_target_path: "masks" stands without test_input_path, whose targets it has\n'
        "    give both, or neither"
    )


def test_settings_without_a_run_file_say_what_to_do(tmp_path: Path):
    given = {"checkpoint": "$RML_DATA/c.pt", "test_input_path": "new"}
    assert problems(given, "evaluate", tmp_path, settings=["data.batch_size=3"]) == (
        "--set: changes the run file, and none stands in x\n"
        "    put its content there as neural_network; what else stands in the file is changed there"
    )


def test_no_path_has_a_nul_character(classification: Run, tmp_path: Path):
    given = {"run_file": "a\0.json", "champion": "b\0", "base": "c\0"}
    assert problems(given, "retrain", tmp_path) == (
        'base: "c\\u0000" has a NUL character\n    take it out\n'
        'run_file: "a\\u0000.json" has a NUL character\n    take it out\n'
        'champion: "b\\u0000" has a NUL character\n    take it out'
    )
    with pytest.raises(Refused) as refused:
        plan_of({"champion": "b\0"}, None, "a\0.json")
    assert str(refused.value) == 'run_file: "a\\u0000.json" has a NUL character\n    take it out'
    with pytest.raises(Refused) as refused:
        plan_of({"champion": "b\0"}, classification["neural_network"], None)
    assert str(refused.value) == 'champion: "b\\u0000" has a NUL character\n    allowed: the name of a folder'
