"""What the pages show is right: JSON is valid, commands and programs run, in the order in which a reader meets them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer

from flows import production
from rml_core.run import ROOT

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
# Commands that set up machines or servers are not for a test of pages; tests/production calls them.
HERE = ("export", "rml", "rmldnn")
SERVICE = {
    command.name or command.callback.__name__ for command in production.commands.registered_commands if command.callback
}


class Example(NamedTuple):
    """A block of code. `file`: the name under which the page says to write it."""

    language: str
    text: str
    file: str | None


def examples(page: Path) -> Iterator[Example]:
    before = 0
    text = page.read_text()
    for block in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        names = re.findall(r"[Ww]rite `([\w.]+)`", text[before : block.start()])
        before = block.end()
        yield Example(block[1], block[2], names[-1] if names else None)


def named(pages: list[Path]) -> list[str]:
    return [page.name for page in pages]


README = next(each.text for each in examples(PAGES[0]) if each.file == "run.json")
JSON = [(page, each.text) for page in PAGES for each in examples(page) if each.language == "json"]


@pytest.mark.parametrize(("page", "text"), JSON, ids=[f"{page.name}-{i}" for i, (page, _) in enumerate(JSON)])
def test_json_is_a_valid_run_file_or_a_part_of_one(
    page: Path,
    text: str,
    valid: Callable[[dict[str, Any]], None],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    for each in examples(page):
        if each.file:
            (folder / each.file).write_text(each.text)
    (folder / "checkpoints").mkdir(exist_ok=True)
    content = json.loads(text)
    if isinstance(content, list) or "class_name" in content:
        content = {"layers": content}
    part = content.get(ROOT, content)
    # That a file to load is there is for the run of the whole page.
    if "load" in part.get("checkpoints", {}):
        part["checkpoints"].pop("load")
    # So is a network that a program of the page writes.
    if isinstance(part.get("layers"), str) and not Path(part["layers"]).exists():
        part.pop("layers")
    valid(part)


# Lines that a page quotes from what its commands say.
QUOTED = {
    "keras.md": (
        "Loaded 4 of the network's 4 layers with weights, skipped 0\n",
        "Skipping layer kind: not found in model\n",
        "Loaded 3 of the network's 4 layers with weights, skipped 1; as they began: bird\n",
    ),
    "classify.md": (
        "Skipping layer class: not found in model\n",
        "Loaded 3 of the network's 4 layers with weights, skipped 1; as they began: bird\n",
    ),
    "export.md": (
        "input   (batch, 3, height, width), channels first\noutput  (batch, 2), log_softmax\n",
        'classes ["cats", "dogs"], of the channels\n'
        "samples images, BGR as OpenCV reads them; 8 and 16 bit as numbers from 0 to 1\n",
        "        not in the file: to be done to each sample; random transforms are left out at inference\n",
    ),
    "segment.md": ("mask values 0 -> 0, 255 -> 1\n",),
}


@pytest.mark.parametrize("page", PAGES, ids=named(PAGES))
def test_the_commands_of_a_page_run(
    page: Path, folder: Path, rml: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "run.json").write_text(README)
    said = ""
    for each in examples(page):
        if each.file:
            (folder / each.file).write_text(each.text)
        if each.language == "sh":
            for line in each.text.splitlines():
                # The page about Prefect trains what the README has trained already.
                more = ["--set", "num_epochs=1"] if page.name == "prefect.md" else []
                said += _run(shlex.split(line, comments=True), more, rml, monkeypatch)
        if each.language == "python" and "import rml" not in each.text:
            exec(compile(each.text, page.name, "exec"), {})
    assert [line for line in QUOTED.get(page.name, ()) if line not in said] == []
    if page.name == "README.md":
        lines = [[float(number) for number in line.split()] for line in (folder / "out_test.txt").open()]
        assert [line[0] for line in lines] == list(range(1, 11))
        assert lines[-1][2] < lines[0][2]
    if page.name == "keras.md":
        _same_in_keras(folder)


def _same_in_keras(folder: Path) -> None:
    """What was trained went back to Keras to the bit."""
    import keras

    model = keras.models.load_model(folder / "trained.keras")
    trained = torch.load(folder / "keras_checkpoints" / "model_checkpoint_4.pt", weights_only=True)["network"]
    kernel, bias = (torch.from_numpy(values) for values in model.get_layer("parts").get_weights())
    assert torch.equal(kernel.permute(3, 2, 0, 1), trained["parts.weight"])
    assert torch.equal(bias, trained["parts.bias"])
    statistics = [torch.from_numpy(values) for values in model.get_layer("norm").get_weights()]
    expected = [trained[f"norm.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]
    assert all(map(torch.equal, statistics, expected))


def _run(
    words: list[str], more: list[str], rml: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> str:
    """What the command says."""
    if not words or words[0] not in HERE or words[1] in SERVICE:
        return ""
    if words[0] == "export":
        monkeypatch.setenv(*words[1].split("="))
        return ""
    command, *arguments = words
    if arguments[0] == "run":
        arguments += [option for option in ("--untracked", *more) if option not in arguments]
    status, output, errors = rml(*arguments, command={"rml": "main", "rmldnn": "rmldnn"}[command])
    assert status == 0, f"{words}\n{output}{errors}"
    return output


def test_the_refusal_that_the_commands_page_quotes_is_said(
    folder: Path, rml: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "wrong.json").write_text(README.replace('"Adam"', '"adm"'))
    quoted = next(each.text for each in examples(PROJECT / "docs" / "commands.md") if '"adm"' in each.text)
    assert rml("validate", "wrong.json") == (2, "", f"wrong.json: 1 problem\n\n{quoted}")


def test_the_commands_page_names_every_option_and_variable() -> None:
    from flows.cli import app

    page = (PROJECT / "docs" / "commands.md").read_text()
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {name for each in commands.values() for option in each.params for name in option.opts if name[0] == "-"}
    assert sorted(name for name in options if name not in page) == []
    assert sorted(name for name in commands if f"`rml {name}" not in page) == []
    sources = "".join(
        path.read_text() for part in ("rml_core", "tasks", "flows") for path in PROJECT.glob(f"{part}/**/*.py")
    )
    variables = set(re.findall(r'environ(?:\.get)?[\[(]"([A-Z_]+)"', sources))
    assert {"RML_THREADS", "XDG_CACHE_HOME"} <= variables
    # Those with two underscores are Prefect's, between its own processes.
    assert sorted(name for name in variables if name not in page and not name.startswith("PREFECT__")) == []


@pytest.mark.slow
def test_the_python_of_the_prefect_page_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    (program,) = (each.text for each in examples(PROJECT / "docs" / "prefect.md") if each.language == "python")
    (folder / "run.json").write_text(README)
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, timeout=200)
    assert (folder / "out_test.txt").read_text().count("\n") == 10
