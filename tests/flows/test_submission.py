"""What a run file becomes when it is submitted: paths, parameters, problems, and networks that are too long."""

from __future__ import annotations

import copy
import errno
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.submission import (
    MOST_PARAMETER_BYTES,
    Given,
    expanded,
    from_file,
    is_here,
    parameters_for_prefect,
    parameters_of,
    size_of,
    within_limit,
)
from rml_core.config.problem import Refused

Run = dict[str, Any]


def problems(mapping: Any, deployment: str = "train", folder: Path | None = None, **options: Any) -> str:
    with pytest.raises(Refused) as refused:
        parameters_of(Given("x", mapping, folder or Path.cwd()), deployment, **options)
    return str(refused.value)


def test_a_run_file_is_what_it_was_with_its_folder(classification: Run, run_file: Callable[..., Path], tmp_path: Path):
    made = parameters_of(from_file(str(run_file(classification))))
    assert made.parameters == {**classification, "base": str(tmp_path)}


def test_relative_paths_are_those_of_the_file(
    classification: Run, pictures: Path, run_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    section = classification["neural_network"]
    section["data"] |= {"input_path": "train", "test_input_path": "test"}
    path = pictures / "run.json"
    path.write_text(json.dumps(classification))
    monkeypatch.chdir("/")
    made = parameters_of(from_file(str(path)))
    path.unlink()
    assert made.parameters["base"] == str(pictures)
    assert made.parameters["neural_network"]["data"]["input_path"] == "train"


def test_other_parameters_stand_beside_the_run_file(classification: Run, tmp_path: Path):
    mapping = {**classification, "resume": "auto", "app": "dnn", "ranks": 1, "scheduler": "tcp://host:8786"}
    made = parameters_of(Given("x", mapping, tmp_path), overrides={"app": None})
    assert made.parameters == {**{key: mapping[key] for key in mapping if key != "app"}, "base": str(tmp_path)}
    below = parameters_of(Given("x", {**mapping, "base": "below"}, tmp_path))
    assert below.parameters["base"] == str(tmp_path / "below")


def test_settings_change_the_run_file(classification: Run, tmp_path: Path):
    made = parameters_of(Given("x", classification, tmp_path), settings=["data.batch_size=3", "num_epochs=7"])
    assert made.parameters["neural_network"]["data"]["batch_size"] == 3
    assert made.parameters["neural_network"]["num_epochs"] == 7


def test_every_problem_is_told_at_once(classification: Run):
    mapping = {**classification, "rank": 1, "resume": "on", "ranks": 3, "scheduler": 5, "base": 7, "app": "q"}
    mapping["neural_network"]["num_epochs"] = 0
    assert problems(mapping) == (
        "rank: unknown key\n"
        "    allowed: neural_network, app, base, resume, ranks, scheduler\n"
        '    did you mean "ranks"?\n'
        "base: 7 is not a string\n"
        "    allowed: the folder that relative paths are against\n"
        'resume: "on" does not fit\n'
        "    allowed: auto, or left out to start anew\n"
        "ranks: 3 ranks are not available yet\n"
        "    allowed: 1\n"
        "scheduler: 5 is not a string\n"
        "neural_network.num_epochs: 0 does not fit\n"
        "    allowed: greater than or equal to 1"
    )


def test_options_are_called_options(classification: Run, tmp_path: Path):
    assert problems(classification, folder=tmp_path, overrides={"resume": "on"}) == (
        '--resume: "on" does not fit\n    allowed: auto, or left out to start anew'
    )


def test_what_is_no_run_file_is_told_as_rml_validate_tells_it(classification: Run):
    assert problems([]) == 'run file: [] is not an object\n    allowed: one object, {"neural_network": {...}}'
    assert problems(classification["neural_network"]) == (
        "neural_network: is missing\n"
        '    allowed: one object, {"neural_network": {...}}\n'
        '    put all of it into {"neural_network": ...}'
    )


def test_data_that_is_not_there_is_told_where_it_would_be_seen(classification: Run, tmp_path: Path):
    classification["neural_network"]["data"]["input_path"] = "nowhere"
    assert problems(classification, folder=tmp_path).startswith(
        f"neural_network.data.input_path: {tmp_path}/nowhere does not exist\n"
    )
    far = parameters_of(Given("x", classification, tmp_path), with_data=False)
    assert far.parameters["neural_network"]["data"]["input_path"] == "nowhere"


# --- variables


def test_variables_of_the_submitter_expand_and_those_of_the_worker_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/house")
    monkeypatch.setenv("DISK", "/disk")
    monkeypatch.setenv("RML_DATA", "/here")
    section = {
        "outfile": "~/out.txt",
        "layers": "${DISK}/net.json",
        "data": {"input_path": "$DISK/a", "test_input_path": "$RML_DATA/b", "training_tag": "$DISK"},
        "checkpoints": {"save": "${RML_DATA}/$DISK", "load": "$NOWHERE/c"},
    }
    before = copy.deepcopy(section)
    assert expanded(section) == {
        "outfile": "/house/out.txt",
        "layers": "/disk/net.json",
        "data": {"input_path": "/disk/a", "test_input_path": "$RML_DATA/b", "training_tag": "$DISK"},
        "checkpoints": {"save": "${RML_DATA}//disk", "load": "$NOWHERE/c"},
    }
    assert section == before


def test_data_of_the_worker_is_left_to_the_worker(classification: Run, tmp_path: Path):
    classification["neural_network"]["data"]["input_path"] = "$RML_DATA/train"
    made = parameters_of(Given("x", classification, tmp_path))
    assert made.parameters["neural_network"]["data"]["input_path"] == "$RML_DATA/train"


def test_a_variable_that_nobody_has_is_refused(classification: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    classification["neural_network"]["checkpoints"] = {"save": "$NOWHERE/c"}
    assert problems(classification, folder=tmp_path).startswith(
        'neural_network.checkpoints.save: "$NOWHERE/c": $NOWHERE does not expand on a worker\n'
    )


@pytest.mark.parametrize(
    ("base", "sent"),
    [
        ("$RML_DATA", "$RML_DATA"),
        ("${RML_DATA}/pictures", "${RML_DATA}/pictures"),
        ("/data/$RML_DATA", "/data/$RML_DATA"),
        ("data/$RML_DATA", "FOLDER/data/$RML_DATA"),
        ("$DISK/$RML_DATA", "/disk/$RML_DATA"),
        ("$DISK/RML_DATA", "/disk/RML_DATA"),
        ("RML_DATA", "FOLDER/RML_DATA"),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_a_base_with_a_variable_of_the_worker_is_left_to_the_worker(
    classification: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, sent: str, known: bool
):
    monkeypatch.delenv("RML_DATA", raising=False)
    monkeypatch.setenv("DISK", "/disk")
    if known:
        monkeypatch.setenv("RML_DATA", "/here")
    made = parameters_of(Given("x", {**classification, "base": base}, tmp_path))
    assert made.parameters["base"] == sent.replace("FOLDER", str(tmp_path))
    retrained = parameters_of(
        Given("x", {**classification, "base": base, "champion": "best"}, tmp_path), "retrain", with_data=False
    )
    assert retrained.parameters["champion"] == sent.replace("FOLDER", str(tmp_path)) + "/best"


# --- Prefect's limit


def _wide(classification: Run, layers: int) -> Run:
    layer = {"class_name": "Dense", "config": {"units": 4, "name": "x" * 900}}
    classification["neural_network"]["layers"] = [copy.deepcopy(layer) for _ in range(layers)]
    return classification


def test_a_network_beyond_the_limit_goes_by_reference(
    classification: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    short, long = (_wide(copy.deepcopy(classification), count) for count in (5, 700))
    assert within_limit(short) is short
    made = within_limit(long)
    path = Path(made["neural_network"]["layers"])
    assert path.parent == tmp_path / "rml" / "networks"
    assert json.loads(path.read_text()) == long["neural_network"]["layers"]
    assert {**made["neural_network"], "layers": 0} == {**long["neural_network"], "layers": 0}
    assert size_of(made) < 10_000
    assert os.listdir(path.parent) == [path.name]
    os.utime(path, (1, 1))
    assert within_limit(long) == made
    assert time.time() - path.stat().st_mtime < 600, "what is used again is not old"


def test_what_is_too_long_without_its_network_is_refused(classification: Run, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    classification["neural_network"]["outfile"] = "x" * MOST_PARAMETER_BYTES
    with pytest.raises(Refused) as refused:
        within_limit(classification)
    size = size_of({"neural_network": {**classification["neural_network"], "layers": ""}})
    told = str(refused.value)
    assert told.startswith("neural_network: has 50")
    assert told.endswith(
        " bytes of JSON without its layers\n    allowed: 500,000 bytes, which Prefect takes as parameters"
    )
    assert size > MOST_PARAMETER_BYTES


def test_parameters_without_a_run_file_that_are_too_long_are_refused():
    with pytest.raises(Refused) as refused:
        within_limit({"checkpoint": "x" * MOST_PARAMETER_BYTES})
    assert str(refused.value) == (
        "parameters: have 500,017 bytes of JSON\n    allowed: 500,000 bytes, which Prefect takes"
    )


def test_a_cache_that_cannot_be_written_says_what_to_do(classification: Run, tmp_path: Path, monkeypatch: Any):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Refused) as refused:
        within_limit(_wide(classification, 700))
    assert str(refused.value) == (
        f"neural_network.layers: the network is too long for a parameter, and {tmp_path}/file/rml/networks cannot be "
        "written: Not a directory\n    put it into a file, and name that as layers"
    )


def test_a_network_that_cannot_be_kept_leaves_nothing(classification: Run, tmp_path: Path, monkeypatch: Any):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("flows.submission.os.chmod", full)
    with pytest.raises(Refused, match="networks cannot be written: No space left on device"):
        within_limit(_wide(classification, 700))
    assert list((tmp_path / "rml/networks").iterdir()) == []


# --- the command line


@pytest.mark.parametrize(
    ("url", "here"),
    [
        (None, True),
        ("http://127.0.0.1:4200/api", True),
        ("http://localhost/api", True),
        ("http://[::1]:4200/api", True),
        ("http://10.0.0.1:4200/api", False),
        ("https://api.prefect.cloud/api", False),
        ("http://127.example.org/api", False),
    ],
)
def test_a_server_on_loopback_sees_the_files_that_we_see(url: str | None, here: bool):
    assert is_here(url) is here


def test_standard_input_and_text_are_against_the_working_directory(
    classification: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    text = json.dumps(classification)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    for given in ("-", text):
        made, taken = parameters_for_prefect("train", given, ["app=dnn", "resume=auto", "app=null", "x=1"], None)
        assert json.loads(made) == {**classification, "base": str(tmp_path), "resume": "auto"}
        assert taken == {"resume"}


def test_standard_input_may_begin_with_a_mark_of_the_byte_order(
    classification: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff" + json.dumps(classification)))
    made, _ = parameters_for_prefect("train", "-", [], None)
    assert json.loads(made) == {**classification, "base": str(tmp_path)}


@pytest.mark.parametrize("given", ["", " "])
def test_no_parameters_at_all_are_refused(given: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        parameters_for_prefect("train", given, [], None)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "--params: 1 problem\n\n--params: is empty\n"
        "    allowed: a run file, a path or a URL; JSON text; or - for standard input\n"
    )


def test_a_run_file_may_be_given_as_an_override(classification: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    text = json.dumps(classification["neural_network"])
    made, taken = parameters_for_prefect("train", "{}", [f"neural_network={text}", "base=below"], None)
    assert json.loads(made) == {**classification, "base": str(tmp_path / "below")}
    assert taken == {"neural_network", "base"}


def test_rml_submit_without_a_server_says_what_to_type(
    rml: Callable[..., Any], run_file: Callable[..., Path], classification: Run, monkeypatch: Any, tmp_path: Path
):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    path = run_file(classification)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        status, output, errors = rml("submit", path)
    assert (status, output) == (2, "")
    assert errors == (
        f"{path}: 1 problem\n\nno Prefect server is set up\n"
        "    rml up puts one up here; prefect config set PREFECT_API_URL=http://HOST:4200/api names another one\n"
    )
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        status, output, errors = rml("submit", path)
    assert (status, output) == (2, "")
    assert errors == (
        f"{path}: 1 problem\n\nno Prefect server answers at http://127.0.0.1:9/api: [Errno 111] Connection refused\n"
        "    rml status says whether it runs; rml up puts one up here; "
        "prefect config set PREFECT_API_URL=http://HOST:4200/api names another one\n"
    )
    status, _, errors = rml("submit", path, "--deployment", "trains")
    assert status == 2
    assert errors == (
        f'{path}: 1 problem\n\n--deployment: "trains" does not fit\n'
        "    allowed: train, evaluate, retrain, retrain-NAME\n"
    )


def test_a_password_in_the_address_of_the_file_itself_does_not_become_its_base(classification: Run):
    said = problems(classification, folder="http://me:word@host/runs", with_data=False)  # type: ignore[arg-type]
    assert said.partition("\nneural_network")[0] == (
        'base: "http://me:***@host/runs": the parameters of a run are seen by everybody who sees the run, this secret '
        "too\n    allowed: a URL without a password, a token or a key\n"
        "    give it to the worker, by fsspec's configuration or a Prefect block, and leave it out here: see "
        "docs/security.md"
    )


@pytest.mark.parametrize(("layers", "base"), [("$RML_NETS/net.json", None), ("net.json", "$RML_DATA/runs")])
def test_a_network_that_lies_where_a_worker_says_is_left_to_it(
    classification: Run, tmp_path: Path, layers: str, base: str | None
):
    """The rest of the file is checked all the same."""
    classification["neural_network"]["layers"] = layers
    given = {**classification, "base": base} if base else dict(classification)
    made = parameters_of(Given("x", given, tmp_path))
    assert made.parameters["neural_network"]["layers"] == layers
    assert made.parameters["base"] == (base or str(tmp_path))
    classification["neural_network"]["num_epochs"] = 0
    given["app"] = "pde"
    assert problems(given, folder=tmp_path).splitlines() == [
        "neural_network.num_epochs: 0 does not fit",
        "    allowed: greater than or equal to 1",
        'app: app "pde" is not available yet',
        "    allowed: dnn",
    ]
