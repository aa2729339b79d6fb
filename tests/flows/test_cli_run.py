"""`rml run` and `rmldnn`: settings, what paths are against, which server records the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]
BIN = Path(sys.executable).parent


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
    monkeypatch.setenv("HOME", str(tmp_path / "place"))
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
        f"{tmp_path}/place/kept/model_checkpoint_1.pt",
        f"{tmp_path}/results/here/output_1.h5",
    ]
    assert all(Path(path).is_file() for path in written)


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
        (["a.json"], "the following arguments are required: --config; did you mean --config=a.json?"),
        (["--config="], "argument --config: names no file"),
        (["--config"], "argument --config: expected one argument"),
        (["--config=a.json", "--np", "2"], "unrecognized arguments: --np 2"),
    ],
)
def test_rmldnn_wrongly_used(rmldnn: Rml, arguments: list[str], error: str):
    usage = "usage: rmldnn [-h] [--config FILE] [--app A] [--debug]\n"
    assert rmldnn(*arguments) == (2, "", f"{usage}rmldnn: error: {error}\n")


@pytest.mark.usefixtures("no_server")
def test_rmldnn_under_mpirun_says_that_there_is_one_rank(
    classification: dict[str, Any], rmldnn: Rml, run_file: RunFile, monkeypatch: pytest.MonkeyPatch
):
    file = run_file(classification)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    said = f"{file}: 1 problem\n\n--ranks: 4 ranks are not available yet\n    allowed: 1\n"
    assert rmldnn(f"--config={file}") == (2, "", said)


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


@pytest.mark.slow
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
        "  checkpoints/model_checkpoint_2.pt, the newest of 2",
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
