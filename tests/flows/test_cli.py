"""The commands: what they print, their exit statuses, and what paths are against."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]
USAGE = "Usage: rml {command} [OPTIONS] {arguments}\nTry 'rml {command} --help' for help.\n\nError: {error}\n"


def test_help_names_every_command(rml: Rml):
    status, output, errors = rml("--help")
    assert (status, errors) == (0, "")
    assert output == (
        "Usage: rml [OPTIONS] COMMAND [ARGS]...\n"
        "\n"
        "  Train and run deep networks from one JSON file.\n"
        "\n"
        "Options:\n"
        "  --version  Show the version.\n"
        "  --help     Show this message and exit.\n"
        "\n"
        "Commands:\n"
        "  run       Run a run file as a Prefect flow, here.\n"
        "  validate  Say every problem of every file.\n"
        "  plan      Show what a run would do, without doing it.\n"
        "  network   Show the network of a run file or a Keras JSON file.\n"
        "  export    Write a trained network for onnxruntime, or for torch alone.\n"
        "  schema    Print the run file's JSON schema, for editors.\n"
        "  up        Put server, workers and deployments up on this machine.\n"
        "  down      Take them down; runs in progress go on at the next `rml up`.\n"
        "  status    Say what the service runs; exit status 1 where not all is well.\n"
        "  register  Tell a server that others keep of pools and deployments.\n"
        "  submit    Submit a run file to a deployment, where a worker runs it.\n"
        "  schedule  Retrain by the clock: make, list or remove a schedule.\n"
        "  clean     Remove prepared samples nobody uses, and what dead runs left.\n"
    )


def test_without_arguments_help_is_shown(rml: Rml):
    status, output, errors = rml()
    assert status == 2
    assert (output + errors) == rml("--help")[1]


def test_version(rml: Rml):
    from importlib.metadata import version

    assert rml("--version") == (0, f"rml {version('rml')}\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("run",), USAGE.format(command="run", arguments="{FILE}", error="Missing argument 'FILE'.")),
        (
            ("run", "a.json", "--epochs", "3"),
            USAGE.format(command="run", arguments="{FILE}", error="No such option: --epochs"),
        ),
        (
            ("validate",),
            USAGE.format(command="validate", arguments="{FILE...}...", error="Missing argument 'FILE...'."),
        ),
        (
            ("train", "a.json"),
            "Usage: rml [OPTIONS] COMMAND [ARGS]...\nTry 'rml --help' for help.\n\nError: No such command 'train'.\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage(rml: Rml, arguments: tuple[str, ...], expected: str):
    assert rml(*arguments) == (2, "", expected)


def test_ranks_that_are_no_number(rml: Rml):
    status, output, errors = rml("run", "a.json", "--ranks", "two")
    assert (status, output) == (2, "")
    assert "Error: Invalid value for '--ranks': " in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("command", ["run", "plan", "validate", "network"])
def test_a_file_that_is_not_there(rml: Rml, command: str, tmp_path: Path):
    path = tmp_path / "no.json"
    assert rml(command, path) == (2, "", f"{path}: 1 problem\n\n{path}: no such file or directory\n")


def test_validate_says_every_problem_of_every_file(
    classification: dict[str, Any], rml: Rml, run_file: RunFile, tmp_path: Path
):
    good = run_file(classification, "good.json")
    broken = copy.deepcopy(classification)
    broken["neural_network"] |= {"num_epochs": 0, "outfiel": "out.txt"}
    del broken["neural_network"]["data"]["input_type"]
    bad = run_file(broken, "bad.json")
    text = run_file('{"neural_network": {\n  "num_epochs": 3\n  "seed": 1}}', "text.json")
    status, output, errors = rml("validate", good, bad, text)
    assert (status, output) == (2, f"{good}: ok\n")
    assert errors == (
        f"{bad}: 3 problems\n"
        "\n"
        "neural_network.num_epochs: 0 does not fit\n"
        "    allowed: greater than or equal to 1\n"
        "neural_network.data.input_type: is missing\n"
        "    allowed: images, mnist, numpy, hdf5, zarr\n"
        '    or give "type" where inputs and targets are of one type\n'
        "neural_network.outfiel: unknown key\n"
        "    allowed: outfile, num_epochs, debug, debug_interval, layers, data, optimizer, loss, checkpoints, seed, "
        "precision, device, early_stopping, tensorboard\n"
        '    did you mean "outfile"?\n'
        "\n"
        f"{text}: 1 problem\n"
        "\n"
        f"{text}, line 3, column 3: not JSON: Expecting ',' delimiter\n"
        "    look for a comma, a quote or a bracket that is missing or too many just before that place\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.json", "good.json", "text.json"]


def test_validate_skips_the_data_when_told_to(classification: dict[str, Any], rml: Rml, run_file: RunFile):
    classification["neural_network"]["data"]["input_path"] = "nowhere"
    file = run_file(classification)
    assert rml("validate", file, "--skip-data") == (0, f"{file}: ok\n", "")
    status, output, errors = rml("validate", file)
    assert (status, output) == (2, "")
    assert f"neural_network.data.input_path: {file.parent}/nowhere does not exist\n" in errors


def test_validate_passes_warnings_on(classification: dict[str, Any], rml: Rml, run_file: RunFile):
    classification["neural_network"]["layers"][-1]["config"]["activation"] = "softmax"
    file = run_file(classification)
    assert rml("validate", file) == (
        0,
        f"{file}: ok\n",
        f"{file}: warning: neural_network.loss: NLL after softmax: the log is taken "
        '("source": "softmax" says that this is meant)\n',
    )


def test_debug_adds_a_traceback_and_changes_nothing_else(classification: dict[str, Any], rml: Rml, run_file: RunFile):
    classification["neural_network"]["num_epochs"] = 0
    file = run_file(classification)
    for command in (("validate",), ("plan",), ("run", "--untracked")):
        status, output, errors = rml(*command, file)
        assert (status, output) == (2, "")
        assert "Traceback" not in errors
        status, output, with_debug = rml(*command, file, "--debug")
        assert (status, output) == (2, "")
        assert with_debug.startswith("Traceback (most recent call last):\n")
        assert with_debug.endswith(errors)


def test_debug_shows_where_a_run_failed(classification: dict[str, Any], rml: Rml, run_file: RunFile):
    section = classification["neural_network"]
    section["optimizer"] = {"type": "SGD", "learning_rate": 1e38}
    file = run_file(classification)
    status, _, errors = rml("run", file, "--untracked")
    assert status == 1
    assert re.fullmatch(r"train epoch 1: the loss became \w+ in epoch 1, batch \d+: .*\n", errors)
    status, _, with_debug = rml("run", file, "--untracked", "--debug")
    assert status == 1
    assert with_debug.startswith("Traceback (most recent call last):\n")
    assert with_debug.endswith(errors)


def test_what_nobody_foresaw_is_one_line_and_exit_status_1(
    classification: dict[str, Any], rml: Rml, run_file: RunFile, monkeypatch: pytest.MonkeyPatch
):
    def broken(checked: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("flows.plan.plan", broken)
    said = "KeyError: 'oops'\n    this should not happen: please report it with what --debug shows\n"
    assert rml("plan", run_file(classification)) == (1, "", said)


def test_plan_as_json(classification: dict[str, Any], rml: Rml, run_file: RunFile, tmp_path: Path):
    section = classification["neural_network"]
    section["num_epochs"] = 2
    section["data"]["transforms"].insert(0, {"resize": [10, 8]})
    status, output, errors = rml("plan", run_file(classification), "--json")
    assert (status, errors) == (0, "")
    assert json.loads(output) == {
        "app": "dnn",
        "phases": [
            {"name": "load training", "kind": "load"},
            {"name": "transform training", "kind": "transform"},
            {"name": "load test", "kind": "load"},
            {"name": "transform test", "kind": "transform"},
            {"name": "build network", "kind": "build"},
            {"name": "train epoch 1", "kind": "train"},
            {"name": "checkpoint epoch 1", "kind": "checkpoint"},
            {"name": "evaluate epoch 1", "kind": "evaluate"},
            {"name": "train epoch 2", "kind": "train"},
            {"name": "checkpoint epoch 2", "kind": "checkpoint"},
            {"name": "evaluate epoch 2", "kind": "evaluate"},
        ],
        "samples": {"train": 24, "test": 10},
        "batches": {"train": 6, "test": 2},
        "sample_shape": [1, 8, 10],
        "output_shape": [2],
        "parameters": 4 * 9 + 4 + 4 * 5 * 4 * 2 + 2,
        "slice_sets": [],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("left_out", "samples", "batches", "kinds"),
    [
        ("input_path", {"train": 0, "test": 10}, {"train": 0, "test": 2}, {"load", "build", "evaluate"}),
        (
            "test_input_path",
            {"train": 24, "test": 0},
            {"train": 6, "test": 0},
            {"load", "build", "train", "checkpoint"},
        ),
    ],
)
def test_plan_of_one_half_of_a_run(
    classification: dict[str, Any],
    rml: Rml,
    run_file: RunFile,
    left_out: str,
    samples: dict[str, int],
    batches: dict[str, int],
    kinds: set[str],
):
    del classification["neural_network"]["data"][left_out]
    classification["neural_network"]["data"].pop("test_output_path")
    planned = json.loads(rml("plan", run_file(classification), "--json")[1])
    assert (planned["samples"], planned["batches"]) == (samples, batches)
    assert {phase["kind"] for phase in planned["phases"]} == kinds


def test_plan_as_text(classification: dict[str, Any], rml: Rml, run_file: RunFile):
    classification["neural_network"]["num_epochs"] = 1
    file = run_file(classification)
    figures = (
        "app dnn\n24 training samples in 6 batches\n10 test samples in 2 batches\n"
        "sample 1 x 12 x 12, output 2 (channels first)\n330 parameters\n\n"
        "  load training\n  load test\n  build network\n"
    )
    epochs = "  train epoch 1\n  checkpoint epoch 1\n  evaluate epoch 1\n"
    assert rml("plan", file) == (0, figures + epochs, "")

    classification["neural_network"]["num_epochs"] = 241
    assert rml("plan", run_file(classification)) == (
        0,
        figures
        + "".join(f"  train epochs {first}-{first + 2}\n" for first in range(1, 26, 3))
        + "  ... 64 more ...\n"
        + "".join(f"  train epochs {first}-{first + 2}\n" for first in range(220, 241, 3))
        + "  train epoch 241\n",
        "",
    )


def test_schema(classification: dict[str, Any], rml: Rml):
    status, output, errors = rml("schema")
    assert (status, errors) == (0, "")
    schema = json.loads(output)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(classification)
    classification["neural_network"]["num_epoch"] = 3
    assert not validator.is_valid(classification)
