"""What there is behind URLs, in memory and on a web server."""

from __future__ import annotations

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rml_core.config import remote
from rml_core.config.paths import resolve
from rml_core.config.problem import Problem, Refused

CONTENT = {"top.txt": b"top", "a b/c%d.txt": b"below", "a b/deep/e.txt": b"x" * 100_000}


@pytest.fixture(params=["this machine", "memory", "web", "web without parts"])
def root(request: pytest.FixtureRequest, tmp_path: Path, in_memory: Any, web: Any) -> str:
    """A folder with `CONTENT`."""
    for name, content in CONTENT.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    in_memory.put(f"{tmp_path}/folder/", "/store/folder/", recursive=True)
    web.parts = request.param == "web"
    if request.param == "this machine":
        return f"{tmp_path}/folder"
    return "memory://store/folder" if request.param == "memory" else f"http://127.0.0.1:{web.server_port}/folder"


def test_files_are_found_opened_and_read(root: str) -> None:
    assert remote.kind(root) == remote.kind(resolve("a b", root)) == "folder"
    assert remote.kind(remote.below(root, "nothing")) is None
    if "://" in root:
        assert sorted(remote.find(root)) == sorted(remote.find(resolve(root, "/"))) == sorted(CONTENT)
    for name, content in CONTENT.items():
        path = remote.below(root, name)
        assert remote.kind(path) == "file"
        assert remote.read_bytes(path) == remote.read_bytes(resolve(path, "/")) == content
        assert remote.name_of(resolve(path, "/")) == name.rpartition("/")[2]
        with remote.opened(path, block_size=1000) as file:
            assert file.seek(len(content) - 2) == len(content) - 2
            assert file.read() == content[-2:]
            file.seek(1)
            assert file.read(2) == content[1:3]
        with remote.fetched(resolve(path, "/")) as local:
            assert local.read_bytes() == content
        assert local.exists() == ("://" not in root)


def test_threads_share_what_reads(root: str) -> None:
    paths = [remote.below(root, name) for name in CONTENT] * 8
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(remote.read_bytes, paths)) == [*CONTENT.values()] * 8


def test_a_file_that_changes_has_another_identity(root: str, tmp_path: Path, in_memory: Any) -> None:
    path = remote.below(root, "top.txt")
    before = remote.identity(path)
    assert before == remote.identity(resolve(path, "/")) == remote.identity(path)
    assert before[:2] == (path, 3)
    (tmp_path / "folder" / "top.txt").write_bytes(b"now")
    # As a copy of an older file leaves it; a second is what the web server's times tell apart.
    os.utime(tmp_path / "folder" / "top.txt", (1_000_000, 1_000_000))
    in_memory.pipe_file("/store/folder/top.txt", b"now")
    assert remote.identity(path) != before
    with pytest.raises(FileNotFoundError):
        remote.identity(remote.below(root, "nothing"))


def test_what_has_no_state_is_not_known_again_by_another_process(
    in_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory.pipe_file("/a", b"content")
    monkeypatch.setattr(in_memory, "info", lambda path: {"name": path, "size": 7, "type": "file"})
    assert remote.identity("memory://a") == ("memory://a", 7, remote.UNKNOWN_STATE)


def test_a_problem_in_a_copy_names_the_url(root: str) -> None:
    path = resolve(remote.below(root, "top.txt"), "/")
    with pytest.raises(Refused) as refused, remote.fetched(path) as local:
        raise Refused([Problem("load", f"{local} is damaged")])
    assert str(refused.value) == f"load: {path} is damaged"


def test_nobody_answers(web: Any) -> None:
    web.server_close()
    url = f"http://127.0.0.1:{web.server_port}/a"
    for ask in (remote.kind, remote.find, remote.read_bytes, remote.opened, remote.identity):
        with pytest.raises(OSError, match=r"Cannot connect") as raised:
            ask(url)
        host = f"127.0.0.1:{web.server_port}"
        assert raised.value.strerror == (
            f"Cannot connect to host {host} ssl:default [Connect call failed ('127.0.0.1', {web.server_port})]"
        )


def test_a_server_that_refuses(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "status", 403)
    with pytest.raises(OSError, match="403") as raised:
        remote.kind(f"http://127.0.0.1:{web.server_port}/a")
    assert raised.value.strerror == f"403, message='Forbidden', url='http://127.0.0.1:{web.server_port}/a'"


def test_a_zip_archive_is_read_in_parts(web: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("large", os.urandom(1_000_000))
        archive.writestr("small", b"content")
    with remote.opened(f"http://127.0.0.1:{web.server_port}/a.zip", block_size=1000) as file:
        assert zipfile.ZipFile(file).read("small") == b"content"


@pytest.mark.parametrize(
    "url", ["ftp://me:word@host:2121/a/b", "sftp://host/a", "s3://bucket/a", "memory://a", "https://host/a?b"]
)
def test_a_place_as_text_leads_back_to_it(url: str) -> None:
    from upath import UPath

    assert remote.text_of(UPath(url)) == url
    assert UPath(remote.text_of(UPath(url))).storage_options == UPath(url).storage_options
