"""Prefect's plugin hook: which command lines are ours, what becomes of them, and that no other is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import plugin
from flows.plugin import Asked, asked


@pytest.mark.parametrize(
    ("line", "deployment", "given_text"),
    [
        ("deployment run rml/train --params run.json", "train", "run.json"),
        ("deployment run rml/train --params=run.json", "train", "run.json"),
        ("deployment run --params run.json rml/train", "train", "run.json"),
        ("deployment run --params - rml/train", "train", "-"),
        ("deployment run rml/evaluate --watch --params a.json --tag x", "evaluate", "a.json"),
        ("deployment run rml/retrain --param margin=1 --params a.json", "retrain", "a.json"),
        ("deployment run rml/retrain-digits -p margin=1 --params a.json", "retrain-digits", "a.json"),
        ("--no-prompt deployment run rml/train --params run.json", "train", "run.json"),
        ("deployment run --name rml/train --params run.json", "train", "run.json"),
        ("deployment run --watch rml/train --tag rml/train --params s3://b/run.json", "train", "s3://b/run.json"),
    ],
)
def test_what_is_asked(line: str, deployment: str, given_text: str):
    found = asked(line.split())
    assert found is not None
    assert (found.deployment, found.given) == (deployment, given_text)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "version",
        "deployment run",
        "deployment ls --params run.json",
        "deployment run rml/train",
        "deployment run rml/train --params",
        "deployment run rml/mine --params run.json",
        "deployment run rml/training --params run.json",
        "deployment run other/train --params run.json",
        "deployment run --tag rml/train --params run.json",
        "deployment run --id 1234 --params run.json",
        "deployment run rml/train --params a --params b",
        "deployment run rml/train --param neural_network=run.json",
        "deployment inspect rml/train --params run.json",
        "flow-run ls rml/train --params run.json",
    ],
)
def test_other_commands_are_not_ours(line: str):
    assert asked(line.split()) is None


OPTIONS = st.sampled_from(
    [
        ["--watch"],
        ["--no-watch"],
        ["--tag", "rml/train"],
        ["--tag=x"],
        ["-p", "a=1"],
        ["-pa=1"],
        ["--param", "b=2"],
        ["--param=b=2"],
        ["--job-variable", "c=3"],
        ["--start-in", "1 hour"],
        ["--flow-run-name", "--params"],
        ["--watch-timeout", "3"],
        ["--params", "run.json"],
        ["--params=run.json"],
        ["--params", "-"],
        ["--params", "--watch"],
        ["rml/train"],
        ["rml/evaluate"],
        ["--name", "rml/train"],
    ]
)


@settings(deadline=None, max_examples=100)
@given(st.lists(OPTIONS, min_size=1, max_size=5))
def test_a_command_line_is_read_as_prefect_reads_it(parts: list[list[str]]):
    from cyclopts import CycloptsError
    from prefect.cli.deployment import deployment_app

    words = ["run", *(word for part in parts for word in part)]
    try:
        _, bound, *_ = deployment_app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError:
        # Prefect refuses it, whatever we make of it.
        return
    found = asked(["deployment", *words])
    name, params = bound.arguments.get("name"), bound.arguments.get("multiparams")
    assert (found is not None) == (name is not None and params is not None)
    if found is not None:
        assert (f"rml/{found.deployment}", found.given) == (name, params)
        assert [each.text for each in found.overrides] == (bound.arguments.get("params") or [])
        handed = found.with_parameters(["deployment", *words], '{"a": 1}')
        _, again, *_ = deployment_app.parse_args(handed[1:], exit_on_error=False, print_error=False)
        assert again.arguments == {**bound.arguments, "multiparams": '{"a": 1}'}
        handed = found.with_parameters(["deployment", *words], '{"a": 1}', ["a"])
        _, again, *_ = deployment_app.parse_args(handed[1:], exit_on_error=False, print_error=False)
        left = [text for text in bound.arguments.get("params") or [] if text != "a=1"]
        assert (again.arguments.get("params") or []) == left
        rest = {key: value for key, value in bound.arguments.items() if key != "params"}
        assert {key: value for key, value in again.arguments.items() if key != "params"} == {
            **rest,
            "multiparams": '{"a": 1}',
        }


def test_the_profile_of_the_command_is_found():
    assert asked(["--profile", "far", "deployment", "run", "rml/train", "--params", "x"]) == Asked(
        "train", "x", 6, "far", ()
    )
    assert asked(["-p", "far", "deployment", "run", "rml/train", "--params=x"]) == Asked("train", "x", 5, "far", ())


def _hook(monkeypatch: pytest.MonkeyPatch, *words: str, program: str = "/usr/bin/prefect") -> list[str]:
    monkeypatch.setattr(sys, "argv", [program, *words])

    class Context:
        api_url = "http://127.0.0.1:4200/api"

    plugin.setup_environment(ctx=Context())  # type: ignore[arg-type]
    return sys.argv[1:]


def test_a_file_is_replaced_by_the_parameters_that_it_makes(
    monkeypatch: pytest.MonkeyPatch, classification: dict[str, Any], run_file: Callable[..., Path], tmp_path: Path
):
    path = run_file(classification)
    monkeypatch.chdir("/")
    words = _hook(monkeypatch, "deployment", "run", "rml/train", "--params", str(path), "--watch")
    assert words[:4] == ["deployment", "run", "rml/train", "--params"]
    assert words[5:] == ["--watch"]
    assert json.loads(words[4]) == {**classification, "base": str(tmp_path)}


def test_what_is_named_with_p_is_handed_on_as_it_was_taken(
    monkeypatch: pytest.MonkeyPatch, classification: dict[str, Any], run_file: Callable[..., Path], tmp_path: Path
):
    """Prefect would put it in as it was typed: a folder that is relative to nothing the worker knows."""
    path = run_file(classification)
    words = _hook(
        monkeypatch, "deployment", "run", "rml/train", "-p", "base=below", "--params", str(path), "-presume=auto",
        "--param=app=null", "-p", "mine=1",
    )  # fmt: skip
    assert json.loads(words[4]) == {**classification, "base": str(tmp_path / "below"), "resume": "auto"}
    assert [*words[:4], *words[5:]] == [
        "deployment", "run", "rml/train", "--params", "--param=app=null", "-p", "mine=1",
    ]  # fmt: skip


@pytest.mark.parametrize("program", ["/usr/bin/rml", "/usr/bin/pytest", "/usr/bin/prefect-worker"])
def test_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch, program: str):
    words = ["deployment", "run", "rml/train", "--params", "nowhere.json"]
    assert _hook(monkeypatch, *words, program=program) == words


def test_another_deployment_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    words = ["deployment", "run", "rml/mine", "--params", "nowhere.json"]
    assert _hook(monkeypatch, *words) == words


def test_a_bad_file_ends_the_command_with_every_problem(
    monkeypatch: pytest.MonkeyPatch, run_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    path = run_file({"neural_network": {"layers": [], "num_epochs": 0, "data": {"type": "imags"}}, "rank": 2})
    with pytest.raises(SystemExit) as ended:
        _hook(monkeypatch, "deployment", "run", "rml/train", "--params", str(path))
    assert ended.value.code == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == (
        f"{path}: 5 problems\n\n"
        "rank: unknown key\n"
        "    allowed: neural_network, app, base, resume, ranks, scheduler\n"
        '    did you mean "ranks"?\n'
        "neural_network.num_epochs: 0 does not fit\n"
        "    allowed: greater than or equal to 1\n"
        'neural_network.data.type: unknown data type "imags"\n'
        "    allowed: images, labels, mnist, numpy, hdf5, zarr\n"
        '    did you mean "images"?\n'
        "neural_network.data.input_path: is missing\n"
        "    give input_path to train, test_input_path to evaluate or infer, or both\n"
        "neural_network.layers: there are no layers\n"
        "    allowed: at least one\n"
    )


def test_json_text_that_is_none_says_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        _hook(monkeypatch, "deployment", "run", "rml/train", "--params", '{"neural_network": ')
    assert capsys.readouterr().err == (
        "--params: 1 problem\n\n"
        "--params, line 1, column 20: not JSON: Expecting value\n"
        "    look for a comma, a quote or a bracket that is missing or too many just before that place\n"
    )


def test_the_hook_imports_next_to_nothing(tmp_path: Path):
    # Away from the project's folder, whose prefect.toml has Prefect import it.
    program = (
        "import sys, prefect.plugins; before = set(sys.modules); import flows.plugin\n"
        "print(sorted(name for name in set(sys.modules) - before if name.split('.')[0] in "
        "('flows', 'tasks', 'rml_core', 'torch', 'numpy', 'cv2', 'dask', 'pandas')))"
    )
    command = [sys.executable, "-c", program]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert finished.stdout == "['flows', 'flows.plugin']\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-m", "prefect"], [str(Path(sys.executable).with_name("prefect"))]])
def test_prefect_itself_calls_the_hook(command: list[str], run_file: Callable[..., Path], tmp_path: Path):
    path = run_file({"neural_network": {"data": {}}})
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment = {**kept, "PREFECT_HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    words = [sys.executable, *command, "deployment", "run", "rml/train", "--params", str(path)]
    on = subprocess.run(words, env={**environment, "PREFECT_PLUGINS_ENABLED": "true"}, capture_output=True, text=True)
    assert on.returncode == 2
    assert on.stderr.startswith(f"{path}: ")
    assert "neural_network.layers: is missing\n" in on.stderr
    assert on.stdout == ""
    off = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert off.returncode == 1
    assert "Failed to parse JSON" in off.stdout + off.stderr
    project = Path(__file__).parents[2]
    here = subprocess.run(words, env=environment, cwd=project, capture_output=True, text=True)
    assert (here.returncode, here.stderr) == (on.returncode, on.stderr)
