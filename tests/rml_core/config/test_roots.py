"""What `RML_ROOTS` keeps a run from touching."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.places import Places
from rml_core.config.paths import resolve
from rml_core.config.problem import Refused
from rml_core.config.roots import REMEDY, VARIABLE, Roots, check, kept, links_outside, opened, roots, start
from rml_core.engine.log import LogFiles


def _set(monkeypatch: pytest.MonkeyPatch, *places: object) -> None:
    monkeypatch.setenv(VARIABLE, ":".join(map(str, places)))


def test_unset_everything_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert roots() is None
    assert resolve("/etc/passwd", "/") == Path("/etc/passwd")


def test_folders_and_urls_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, "/data", "s3://bucket/a/", "https://host:8080/x", "http://host:80", "~/mine", "")
    monkeypatch.setenv("HOME", "/me")
    assert roots() == Roots(("/data", "/me/mine"), ("s3://bucket/a", "https://host:8080/x", "http://host:80"))


def test_roots_that_mean_nothing_allow_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, "data", "https://host/../x")
    with pytest.raises(Refused) as refused:
        resolve("/data", "/")
    assert str(refused.value) == (
        'RML_ROOTS: "data" is not an absolute path\n    allowed: folders, as /data, and URLs, as s3://bucket\n'
        'RML_ROOTS: "https://host/../x" has .. in it\n    allowed: a URL that begins as those it allows do'
    )
    _set(monkeypatch, " ")
    with pytest.raises(Refused) as refused:
        resolve("/data", "/")
    assert str(refused.value) == (
        "RML_ROOTS: names no place: nothing could be read or written\n"
        "    name folders and URLs, or unset it to allow every place"
    )


@pytest.mark.parametrize(
    ("path", "base", "inside"),
    [
        ("a.png", "{root}", True),
        ("{root}", "/", True),
        ("file://{root}/b", "/", True),
        ("local://{root}/../out", "/", False),
        ("file:///etc/passwd", "{root}", False),
        ("/etc/passwd", "{root}", False),
        ("..", "{root}", False),
        ("below/.././b", "{root}", True),
        ("{root}s/a", "/", False),
        # A link, and what is above where it leads: the kernel goes there, and so does who takes `..` as text.
        ("link/a", "{root}", False),
        ("inner/../a", "{root}", False),
        ("inner/a", "{root}", True),
        ("file.h5:/group/name", "{root}", True),
        ("file.h5:/../../../etc/passwd", "{root}", False),
        ("https://host/x/a.png", "{root}", True),
        ("https://HOST/x", "{root}", True),
        ("https://me@host/x/a.png", "{root}", True),
        ("a.png", "https://host/x", True),
        ("../a.png", "https://host/x", False),
        ("../../x/a.png", "https://host/x/y", True),
        ("https://host/xy", "{root}", False),
        ("http://host/x/a.png", "{root}", False),
        ("https://host@evil/x/a.png", "{root}", False),
        ("https://evil\\@host/x/a.png", "{root}", False),
        ("https://host:1/x/a.png", "{root}", False),
        ("https://host/x/../a.png", "{root}", False),
        ("https://host/x/%2e%2e/a.png", "{root}", False),
        ("https://host/x/%252e%252e/a.png", "{root}", False),
        ("https://host/x/..\\a.png", "{root}", False),
        ("https://host/x/a?/../../b", "{root}", False),
        ("memory://other", "{root}", False),
        ("memory://set/a", "{root}", True),
    ],
)
def test_what_is_inside(path: str, base: str, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for folder in (root / "deep" / "er", out / "deep"):
        folder.mkdir(parents=True)
    (root / "link").symlink_to(out)
    (root / "inner").symlink_to(root / "deep" / "er")
    (root / "a").symlink_to(out / "a")
    _set(monkeypatch, root, "https://host/x", "memory://set")
    path, base = path.format(root=root), base.format(root=root)
    if inside:
        resolve(path, base)
    else:
        with pytest.raises(Refused, match=r"is outside of what may be read and written here\n +allowed: below "):
            resolve(path, base)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["..", ".", "a", "link", "inner", "root", "", "a b"]), max_size=8))
def test_what_is_let_through_is_below_a_root(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    top = tmp_path_factory.mktemp("any").resolve()
    (top / "root" / "deep" / "er").mkdir(parents=True)
    (top / "root" / "link").symlink_to(top)
    (top / "root" / "inner").symlink_to(top / "root" / "deep" / "er")
    allowed = Roots((str(top / "root"),), ())
    path = f"{top}/root/" + "/".join(parts)
    if allowed.has_file(path):
        assert Path(path).resolve().is_relative_to(top / "root")
        assert Path(os.path.normpath(path)).resolve().is_relative_to(top / "root")


def test_the_message_says_where_it_leads_and_what_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    (tmp_path / "secret").symlink_to("/etc")
    _set(monkeypatch, root, "s3://bucket")
    end = (
        f" is outside of what may be read and written here\n    allowed: below {root}, s3://bucket (RML_ROOTS)\n"
        "    use a place in one of them, or ask whoever runs the worker to add this one to RML_ROOTS"
    )
    for path, begins in (
        ("/etc/passwd", '"/etc/passwd"'),
        ("../x", f'"../x" leads to {tmp_path}/x, which'),
        ("link/passwd", '"link/passwd" leads to /etc/passwd, which'),
        # Where links outside of the roots lead is not told.
        ("../secret", f'"../secret" leads to {tmp_path}/secret, which'),
        ("https://host/x?token=abc", '"https://host/x?token=***"'),
    ):
        with pytest.raises(Refused) as refused:
            resolve(path, root)
        assert str(refused.value) == begins + end


def test_a_file_is_looked_at_when_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "own").write_bytes(b"own")
    (tmp_path / "other").write_bytes(b"other")
    (root / "link").symlink_to(tmp_path / "other")
    (root / "near").symlink_to(root / "own")
    _set(monkeypatch, root)
    assert links_outside(str(root), ["own", "link", "near"]) == ["link"]
    with opened(str(root / "near")) as file:
        assert file.read() == b"own"
    assert start(str(root / "near"), 2) == b"ow"
    for open_it in (opened, check, lambda path: start(path, 2)):
        with pytest.raises(PermissionError) as outside:
            open_it(str(root / "link"))
        assert outside.value.strerror == f"it leads to {tmp_path}/other, which is not below {root} (RML_ROOTS)"


def test_rmls_own_files_may_be_opened_and_not_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "inputs.npy").write_bytes(b"x")
    _set(monkeypatch, tmp_path / "root")
    kept(own)
    opened(check(str(own / "inputs.npy"))).close()
    with pytest.raises(Refused):
        resolve("own/inputs.npy", tmp_path)


def test_what_is_written_is_looked_at_where_it_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "logs").mkdir(parents=True)
    (root / "logs" / "out_test.txt").symlink_to(tmp_path / "other.txt")
    _set(monkeypatch, root)
    places = Places(LogFiles.beside(root / "logs" / "out.txt"), None, None, tmp_path)
    with pytest.raises(Refused) as refused:
        places.make()
    outside = "is outside of what may be read and written here"
    rest = f"    allowed: below {root} (RML_ROOTS)\n    {REMEDY}"
    assert str(refused.value) == (
        f'neural_network.outfile: "{root}/logs/out_test.txt" leads to {tmp_path}/other.txt, which {outside}\n{rest}\n'
        f'neural_network.debug: "{tmp_path}/network.dot" {outside}\n{rest}'
    )
    assert not (tmp_path / "other.txt").exists()


def test_folders_within_that_of_tensorboard_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "watched").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (root / "watched" / "batches").symlink_to(tmp_path / "other")
    _set(monkeypatch, root)
    with pytest.raises(Refused) as refused:
        Places(None, None, None, None, tensorboard=root / "watched").make()
    assert str(refused.value) == (
        f'neural_network.tensorboard: "{root}/watched/batches" leads to {tmp_path}/other, which is outside of what may '
        f"be read and written here\n    allowed: below {root} (RML_ROOTS)\n    {REMEDY}"
    )
