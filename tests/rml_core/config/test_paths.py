"""Where a path of the run file leads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rml_core.config.paths import folder_of, is_url, problem_of, resolve
from rml_core.config.problem import Refused


@pytest.mark.parametrize(
    ("path", "base", "leads_to"),
    [
        ("a.png", "/base", "/base/a.png"),
        ("/a.png", "/base", "/a.png"),
        ("~/a.png", "/base", "/me/a.png"),
        ("$DATA/a.png", "/base", "/base/set/a.png"),
        ("file:///a.png", "/base", "/a.png"),
        ("local:///a.png", "memory://base", "/a.png"),
        ("a.png", "memory://base", "memory://base/a.png"),
        ("./b//../a.png", "memory://base/below", "memory://base/below/a.png"),
        ("../a.png", "memory://base/below", "memory://base/a.png"),
        ("/a.png", "memory://base", "/a.png"),
        ("~/a.png", "memory://base", "/me/a.png"),
        ("memory://$DATA/a.png", "/base", "memory://set/a.png"),
        ("https://host/x/a.json?token=1/2", "/base", "https://host/x/a.json?token=1/2"),
        ("masks", "https://host/x", "https://host/x/masks"),
    ],
)
def test_a_path_is_against_the_run_files_folder(
    path: str, base: str, leads_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/me")
    monkeypatch.setenv("DATA", "set")
    found = resolve(path, base)
    assert str(found) == leads_to
    assert isinstance(found, Path) != is_url(found)
    assert str(resolve(path, resolve(base, "/"))) == leads_to


def test_the_folder_of_a_run_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert folder_of(tmp_path / "link" / "run.json") == tmp_path / "real"
    assert folder_of(str(tmp_path / "real" / ".." / "run.json")) == tmp_path
    assert folder_of(f"file://{tmp_path}/run.json") == tmp_path
    assert str(folder_of("memory://a/b/run.json")) == "memory://a/b"
    assert str(folder_of(resolve("https://host/a/run.json?token=1", "/"))) == "https://host/a"


def test_a_protocol_that_is_not_known_or_not_installed() -> None:
    known = "a path of this machine, or a URL, as s3://bucket/name or https://host/name"
    unknown = f'here: "nowhere://a": nowhere:// is not known\n    allowed: {known}'
    assert str(problem_of("nowhere://a", "here")) == unknown
    # A protocol of fsspec's table whose package nobody here has.
    missing = 'here: "lakefs://a": the package that reads lakefs:// is not installed\n    '
    assert str(problem_of("lakefs://a", "here")) == missing + "Please install lakefs-spec to access LakeFSFileSystem"
    inside = 'here: "zip://a.png::https://h/a.zip": what lies inside another file is not read\n'
    assert str(problem_of("zip://a.png::https://h/a.zip", "here")) == f"{inside}    allowed: {known}\n    unpack it"
    for path in ("memory://a", "https://a/b", "file:///a", "a"):
        assert problem_of(path) is None
    with pytest.raises(Refused, match="nowhere:// is not known"):
        resolve("nowhere://a", "/")


def test_paths_of_this_machine_need_no_library_for_urls() -> None:
    """Nor does importing every section: commands start as fast as before there were URLs."""
    program = (
        "import sys; from rml_core import check; from rml_core.config.paths import resolve; resolve('a', '/b');"
        "print(sorted({'fsspec', 'upath', 'aiohttp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
