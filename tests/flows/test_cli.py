"""The commands: what they print, their exit statuses, and what paths are against."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]
BIN = Path(sys.executable).parent

USAGE = "Usage: rml {command} [OPTIONS] {arguments}\nTry 'rml {command} --help' for help.\n\nError: {error}\n"


@pytest.fixture
def rmldnn(rml: Rml) -> Rml:
    def call(*arguments: object) -> tuple[int, str, str]:
        return rml(*arguments, command="rmldnn")

    return call


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing names a Prefect server."""
    for variable in list(os.environ):
        if variable.startswith("PREFECT"):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "no prefect here"))


# --- usage


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
        "  schema    Print the run file's JSON schema, for editors.\n"
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


# --- validate


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
        "    allowed: images\n"
        '    or give "type" where inputs and targets are of one type\n'
        "neural_network.outfiel: unknown key\n"
        "    allowed: outfile, num_epochs, debug, debug_interval, layers, data, optimizer, loss, checkpoints, seed, "
        "precision, device, early_stopping\n"
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
        f"{file}: warning: neural_network.loss: NLL takes log-probabilities and the network ends in softmax: the log "
        'is taken. Ending in log_softmax is more exact; "source": "softmax" says that this is meant\n',
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


# --- plan


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


# --- network


def test_network_of_a_run_file(classification: dict[str, Any], rml: Rml, run_file: RunFile, tmp_path: Path):
    """The first layer says no shape: the samples do."""
    file = run_file(classification)
    table = (
        "layer  class         output shape       parameters  from\n"
        "--------------------------------------------------------\n"
        "conv   Conv2D        (None, 12, 12, 4)          40\n"
        "pool   MaxPooling2D  (None, 6, 6, 4)             0  conv\n"
        "drop   Dropout       (None, 6, 6, 4)             0  pool\n"
        "flat   Flatten       (None, 144)                 0  drop\n"
        "dense  Dense         (None, 2)                 290  flat\n"
        "\n"
        "330 parameters, 330 trainable, 0 not\n"
    )
    dot = tmp_path / "network.dot"
    assert rml("network", file, "--dot", dot) == (0, table, "")
    assert dot.read_text().startswith("digraph network {\n")
    assert dot.read_text().count(" -> ") == 4
    assert rml("network", file, "--json") == (
        0,
        '{"parameters": 330, "trainable": 330, "layers": 5, "output_shape": [null, 2]}\n',
        "",
    )
    assert rml("network", file, "--dot", "/proc/network.dot") == (
        2,
        "",
        f"{file}: 1 problem\n\n--dot: /proc/network.dot cannot be written: no such file or directory\n",
    )


def keras_models() -> dict[str, Any]:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    layers = keras.layers
    inputs = layers.Input((32, 32, 3))
    left = layers.Conv2D(8, 3, padding="same", strides=2)(inputs)
    right = layers.MaxPooling2D(2)(inputs)
    both = layers.Concatenate()([left, right])
    both = layers.BatchNormalization()(both)
    inner = keras.Sequential([layers.Conv2D(4, 1), layers.BatchNormalization(trainable=False)], name="inner")
    functional = keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(inner(both))))
    sequential = keras.Sequential(
        [layers.Input((None, None, 1)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.UpSampling2D(2)]
    )
    frozen = keras.Sequential([layers.Input((16,)), layers.Dense(8), layers.Dense(2)])
    frozen.layers[0].trainable = False
    return {"functional": functional, "unknown sizes": sequential, "frozen": frozen}


@pytest.mark.parametrize("name", ["functional", "unknown sizes", "frozen"])
@pytest.mark.parametrize("where", ["its own file", "a run file"])
def test_network_counts_as_keras_counts(
    classification: dict[str, Any], rml: Rml, run_file: RunFile, name: str, where: str
):
    model = keras_models()[name]
    written = json.loads(model.to_json())
    count = len(written["config"]["layers"])
    if where == "a run file":
        classification["neural_network"]["layers"] = written
        written = classification
    status, output, errors = rml("network", run_file(written, "network.json"), "--json")
    assert (status, errors) == (0, "")
    assert json.loads(output) == {
        "parameters": model.count_params(),
        "trainable": sum(math.prod(weight.shape) for weight in model.trainable_weights),
        "layers": count,
        "output_shape": list(model.output_shape),
    }


KERAS_2 = {
    "class_name": "Functional",
    "keras_version": "2.15.0",
    "backend": "tensorflow",
    "config": {
        "name": "model",
        "trainable": True,
        "layers": [
            {
                "class_name": "InputLayer",
                "config": {"batch_input_shape": [None, None, None, 1], "dtype": "float32", "name": "in"},
                "name": "in",
                "inbound_nodes": [],
            },
            {
                "class_name": "Conv2D",
                "config": {"name": "conv", "filters": 2, "kernel_size": [3, 3], "padding": "valid"},
                "name": "conv",
                "inbound_nodes": [[["in", 0, 0, {}]]],
            },
            {
                "class_name": "BatchNormalization",
                "config": {"name": "norm", "axis": [3]},
                "name": "norm",
                "inbound_nodes": [[["conv", 0, 0, {}]]],
            },
        ],
        "input_layers": [["in", 0, 0]],
        "output_layers": [["norm", 0, 0]],
    },
}


def test_network_in_the_way_of_keras_2(rml: Rml, run_file: RunFile):
    assert rml("network", run_file(KERAS_2, "model.json"), "--json") == (
        0,
        '{"parameters": 28, "trainable": 24, "layers": 3, "output_shape": [null, null, null, 2]}\n',
        "",
    )


# --- schema


def test_schema(classification: dict[str, Any], rml: Rml):
    status, output, errors = rml("schema")
    assert (status, errors) == (0, "")
    schema = json.loads(output)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(classification)
    classification["neural_network"]["num_epoch"] = 3
    assert not validator.is_valid(classification)


# --- run


def test_settings_change_the_run_file(classification: dict[str, Any], rml: Rml, run_file: RunFile, tmp_path: Path):
    file = run_file(classification)
    before = file.read_text()
    settings = ["num_epochs=1", "data.batch_size=2", "neural_network.seed=3", "checkpoints.save=kept", "outfile=o.log"]
    settings += ['optimizer={"type": "sgd", "learning_rate": 0.5}', "early_stopping.patience=2"]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    assert rml("run", file, "--untracked", *arguments)[::2] == (0, "")
    assert file.read_text() == before
    assert len((tmp_path / "o_train.log").read_text().splitlines()) == 12
    import torch

    saved = torch.load(tmp_path / "kept" / "model_checkpoint_1.pt", weights_only=True)
    section = json.loads(saved["run"])["neural_network"]
    assert section["optimizer"] == {"type": "sgd", "learning_rate": 0.5}
    assert (section["seed"], section["early_stopping"]) == (3, {"patience": 2})


def test_paths_are_those_of_the_run_files_folder(
    classification: dict[str, Any],
    pictures: Path,
    rml: Rml,
    run_file: RunFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Relative to it; `~` and environment variables expand."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("PICTURES", str(pictures))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    section = classification["neural_network"]
    section["num_epochs"] = 1
    section["data"] |= {
        "input_path": "$PICTURES/train",
        "test_input_path": "${PICTURES}/test",
        "test_output_path": "results/here",
    }
    section["checkpoints"] = {"save": "~/kept"}
    run_file(classification)
    status, output, errors = rml("run", "../run.json", "--untracked")
    assert (status, errors) == (0, "")
    assert list(elsewhere.iterdir()) == []
    written = [line.strip() for line in output.splitlines()[3:]]
    assert written == [
        *(f"{tmp_path}/out{ending}" for ending in ("_train.txt", "_test.txt", "_metrics.jsonl", "_report.png")),
        f"{tmp_path}/home/kept/model_checkpoint_1.pt",
        f"{tmp_path}/results/here/output_1.h5",
    ]
    assert all(Path(path).is_file() for path in written)


# --- rmldnn


@pytest.mark.parametrize(
    "spelling",
    [["--config=conf/run.json"], ["--config=", "conf/run.json"], ["--config", "conf/run.json"]],
    ids=" ".join,
)
@pytest.mark.parametrize("app", [[], ["--app=dnn"], ["--app=", "DNN"]], ids="".join)
@pytest.mark.usefixtures("no_server")
def test_rmldnn(
    classification: dict[str, Any],
    rmldnn: Rml,
    run_file: RunFile,
    spelling: list[str],
    app: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Paths are against the working directory, as rmldnn's were; nothing is tracked without a server."""
    (tmp_path / "conf").mkdir()
    classification["neural_network"]["num_epochs"] = 1
    run_file(classification, "conf/run.json")
    monkeypatch.chdir(tmp_path)
    status, output, errors = rmldnn(*spelling, *app)
    assert (status, errors) == (0, "")
    assert output.startswith("classes left -> 0, right -> 1\nepoch 1/1  loss ")
    assert (tmp_path / "out_train.txt").exists()
    assert [path.name for path in (tmp_path / "conf").iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "the following arguments are required: --config"),
        (["--config="], "argument --config: names no file"),
        (["--config"], "argument --config: expected one argument"),
        (["--config=a.json", "--np", "2"], "unrecognized arguments: --np 2"),
    ],
)
def test_rmldnn_wrongly_used(rmldnn: Rml, arguments: list[str], error: str):
    usage = "usage: rmldnn [-h] --config FILE [--app A] [--debug]\n"
    assert rmldnn(*arguments) == (2, "", f"{usage}rmldnn: error: {error}\n")


@pytest.mark.usefixtures("no_server")
def test_rmldnn_under_mpirun_says_that_there_is_one_rank(
    classification: dict[str, Any], rmldnn: Rml, run_file: RunFile, monkeypatch: pytest.MonkeyPatch
):
    file = run_file(classification)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    said = f"{file}: 1 problem\n\n--ranks: 4 ranks are not available yet\n    allowed: 1\n"
    assert rmldnn(f"--config={file}") == (2, "", said)


# --- is a server set up?

ASK = """
import sys
from flows.tracking import is_configured
print(is_configured(), "prefect" in sys.modules)
"""


@pytest.mark.parametrize(
    ("files", "variables", "expected"),
    [
        ({}, {}, "False False"),
        ({}, {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}, "True False"),
        ({"prefect.toml": '[api]\nurl = "http://127.0.0.1:4200/api"\n'}, {}, "True True"),
        ({"prefect.toml": "[logging]\nlevel = 'INFO'\n"}, {}, "False True"),
        ({"pyproject.toml": '[tool.prefect.api]\nurl = "http://127.0.0.1:4200/api"\n'}, {}, "True True"),
        (
            {"home/profiles.toml": 'active = "a"\n[profiles.a]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"\n'},
            {},
            "True True",
        ),
        ({"home/profiles.toml": 'active = "a"\n[profiles.a]\n'}, {}, "False True"),
    ],
    ids=[
        "nothing",
        "environment",
        "prefect.toml",
        "prefect.toml without",
        "pyproject.toml",
        "profile",
        "profile without",
    ],
)
@pytest.mark.usefixtures("no_server")
def test_is_configured(files: dict[str, str], variables: dict[str, str], expected: str, tmp_path: Path):
    """Prefect, which takes a second to import, is asked only where there is a file that may name a server."""
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "home"), **variables}
    finished = subprocess.run(
        [sys.executable, "-c", ASK], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (finished.stdout.strip(), finished.returncode) == (expected, 0), finished.stderr


# --- without a server


@pytest.mark.usefixtures("no_server")
def test_a_server_of_its_own(classification: dict[str, Any], run_file: RunFile, tmp_path: Path):
    """Without a configured server the run brings one, and takes it away; only our own lines are seen."""
    classification["neural_network"]["num_epochs"] = 2
    home = tmp_path / "prefect home"
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    finished = subprocess.run(
        [BIN / "rml", "run", run_file(classification)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = finished.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["classes left -> 0, right -> 1", "epoch 1/2", "epoch 2/2"]
    assert re.fullmatch(r"done in \d+\.\d s; written:", lines[3])
    assert lines[4:] == [
        "  out_train.txt",
        "  out_test.txt",
        "  out_metrics.jsonl",
        "  out_report.png",
        "  checkpoints/model_checkpoint_2.pt",
        "  predictions/output_2.h5",
    ]
    assert processes_with(f"PREFECT_HOME={home}") == []


def processes_with(setting: str) -> list[str]:
    """The command lines of all processes that have `setting` in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if setting.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found
