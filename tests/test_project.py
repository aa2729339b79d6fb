"""The rules of the house that a reader relies on to find things."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("rml_core", "tasks", "flows", "deployments")
LONGEST = 450
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "stuff"}
# Speech about the making of the project, and places that exist on one machine only.
FOREIGN = re.compile(
    r"\b(?:TODO|FIXME|XXX|HACK)\b|\bfor now\b|\b(?:issue|ticket|pull request) #?\d+|/(?:root|home|work|Users)/\w",
    re.IGNORECASE,
)


def files() -> list[Path]:
    """What git keeps or would keep, without the sample data."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return sorted({path for path in paths if path.is_file() and path.suffix != ".png"})


FILES = files()
PYTHON = [path for path in FILES if path.suffix == ".py"]
PAGES = [path for path in FILES if path.suffix == ".md"]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def test_no_file_has_a_vague_name() -> None:
    vague = [
        path for path in FILES if VAGUE & {part.casefold() for part in path.relative_to(ROOT).with_suffix("").parts}
    ]
    assert names(vague) == []


def test_no_file_is_longer_than_two_rooms() -> None:
    assert names([path for path in PYTHON if len(path.read_text().splitlines()) > LONGEST]) == []


def test_every_module_of_the_packages_says_what_it_is() -> None:
    modules = [path for path in PYTHON if path.relative_to(ROOT).parts[0] in PACKAGES]
    assert names([path for path in modules if not ast.get_docstring(ast.parse(path.read_text()))]) == []


def test_the_project_speaks_only_of_itself() -> None:
    spoken = {}
    for path in FILES:
        if path == Path(__file__) or path.name == "LICENSE":
            continue
        try:
            found = FOREIGN.findall(path.read_text())
        except UnicodeDecodeError:
            continue
        if found:
            spoken[str(path.relative_to(ROOT))] = found
    assert spoken == {}


def test_no_test_is_left_out_where_something_is_missing() -> None:
    leaves_out = re.compile(r"(?:mark\.(?:skip|xfail)|pytest\.(?:skip|xfail|importorskip))\w*\(")
    tests = [path for path in PYTHON if path.is_relative_to(ROOT / "tests") and path != Path(__file__)]
    assert names([path for path in tests if leaves_out.search(path.read_text())]) == []


def test_the_folders_of_the_tests_mirror_the_tree() -> None:
    own = {"oracles", "golden", "bad_input", "production"}
    folders = {path.parent.relative_to(ROOT / "tests") for path in PYTHON if path.is_relative_to(ROOT / "tests")}
    strangers = [folder for folder in folders if not own & set(folder.parts) and not (ROOT / folder).is_dir()]
    assert strangers == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_a_page_links_to_what_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_the_index_lists_every_page_of_the_documentation() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    pages = [path for path in PAGES if path.is_relative_to(ROOT / "docs") and path.name != "index.md"]
    assert [page for page in names(pages) if f"({Path(page).relative_to('docs')})" not in index] == []


def test_the_make_commands_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    command = re.compile(r"(?:^|`)make ([a-z-]+)(?=`|$)", re.MULTILINE)
    assert {target for page in PAGES for target in command.findall(page.read_text())} <= targets
    assert {"setup", "demo", "test", "test-slow", "lint", "bench", "help"} <= targets


def test_ci_begins_with_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line.startswith("make ")]
    assert commands == ["make test", "make lint", "make test-slow", "make chaos KILLS=10"]


def test_the_sample_data_name_their_source_and_licence() -> None:
    readme = (ROOT / "data_samples" / "README.md").read_text()
    folders = [path.name for path in (ROOT / "data_samples").iterdir() if path.is_dir() and path.name != "__pycache__"]
    rows = {folder: line for line in readme.splitlines() for folder in folders if line.startswith(f"| `{folder}/`")}
    assert sorted(rows) == sorted(folders)
    assert all(len([cell for cell in line.strip("|").split("|") if cell.strip()]) == 4 for line in rows.values())


def test_what_make_starts_keeps_what_it_has_compiled() -> None:
    shown = 'show: ; @echo "[$$PYTHONDONTWRITEBYTECODE]"'
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = ["make", "--silent", "--eval", shown, "show"]
    assert subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout == b"[]\n"
