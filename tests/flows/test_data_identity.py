"""What is new in the data of a run: content decides, and files that are as they were noted are not read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import data_identity
from flows.data_identity import Changes, Holdings, changes, content_digest, holdings
from rml_core.config.problem import RunFailed
from rml_core.data.files import Form, Item

OLD = 1_700_000_000


def survey(folder: Path, form: str = "images") -> Any:
    files = tuple(Item(str(path)) for path in sorted(folder.iterdir()))
    return SimpleNamespace(role="training", inputs=files, targets=None, input_form=Form(form), target_form=None)


def put(path: Path, content: bytes, when: float = OLD) -> None:
    path.write_bytes(content)
    os.utime(path, (when, when))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose content was read."""
    names: list[str] = []

    def told(file: str) -> str:
        names.append(Path(file).name)
        return content_digest(file)

    monkeypatch.setattr(data_identity, "content_digest", told)
    return names


FILES = st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.binary(max_size=3), st.integers(0, 2)), min_size=1)


@given(before=FILES, after=FILES)
@settings(max_examples=50, deadline=None)
def test_new_changed_and_gone_are_told_by_content(
    before: dict[str, tuple[bytes, int]], after: dict[str, tuple[bytes, int]]
):
    """As a comparison of whole contents tells it, whatever the times; but what has another content with the same size
    and time."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, (content, when) in before.items():
            put(folder / name, content, OLD + when)
        noted = holdings([survey(folder), None], None)
        for path in folder.iterdir():
            path.unlink()
        for name, (content, when) in after.items():
            put(folder / name, content, OLD + when)
        now = holdings([survey(folder), None], Holdings.from_json(noted.as_json()))
        unseen = {
            name
            for name, (content, when) in after.items()
            if name in before and before[name][1] == when and len(before[name][0]) == len(content)
        }
        changed = {name for name in before.keys() & after.keys() if before[name][0] != after[name][0]} - unseen
        found = changes(noted, now)["training inputs"]
        names = [{Path(file).name for file in files} for files in (found.new, found.changed, found.gone)]
        assert names == [after.keys() - before.keys(), changed, before.keys() - after.keys()]
        assert bool(found) == any(names) == (noted.digest() != now.digest())


def test_only_what_differs_is_read(tmp_path: Path, read: list[str]):
    for name in "abc":
        put(tmp_path / name, name.encode())
    first = holdings([survey(tmp_path)], None)
    assert sorted(read) == ["a", "b", "c"]
    read.clear()
    put(tmp_path / "b", b"b", OLD + 5)
    put(tmp_path / "c", b"C", OLD + 5)
    second = holdings([survey(tmp_path)], first)
    assert sorted(read) == ["b", "c"]
    assert changes(first, second) == {"training inputs": Changes(changed=(str(tmp_path / "c"),))}
    assert str(changes(first, second)["training inputs"]) == "1 changed"
    assert str(changes(first, first)["training inputs"]) == "unchanged"
    read.clear()
    assert holdings([survey(tmp_path)], second).digest() == second.digest()
    assert read == []


def test_what_has_just_changed_is_read_again(tmp_path: Path, read: list[str]):
    """Within the tick of a clock a file can change twice: its time says nothing yet."""
    (tmp_path / "a").write_bytes(b"1")
    first = holdings([survey(tmp_path)], None)
    status = os.stat(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"2")
    os.utime(tmp_path / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert changes(first, holdings([survey(tmp_path)], first))["training inputs"]
    assert read == ["a", "a"]


def test_a_store_is_all_its_files(tmp_path: Path):
    store = tmp_path / "data" / "a.zarr"
    array = zarr.create_array(store=str(store), shape=(4, 4), dtype="u1", chunks=(2, 2))
    array[:] = np.arange(16).reshape(4, 4)
    first = content_digest(str(store))
    assert content_digest(str(store)) == first
    before = holdings([survey(tmp_path / "data", "zarr")], None)
    array[3, 3] = 99
    assert content_digest(str(store)) != first
    assert changes(before, holdings([survey(tmp_path / "data", "zarr")], before))["training inputs"]


@given(st.dictionaries(st.sampled_from(["zarr.json", "a/zarr.json", "a/c/0", "a/c/1/0"]), st.binary(max_size=3)))
@settings(max_examples=20, deadline=None)
def test_a_store_behind_a_url_is_what_it_is_on_this_machine(files: dict[str, bytes]):
    store = fsspec.filesystem("memory")
    store.store.clear()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "data", "a.zarr")
        for name, content in {"zarr.json": b"{}", **files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            store.pipe_file(f"/data/a.zarr/{name}", content)
        there = content_digest("memory://data/a.zarr")
        assert there == content_digest(str(folder))
        store.pipe_file("/data/a.zarr/a/c/2", b"new")
        assert content_digest("memory://data/a.zarr") != there
    store.store.clear()


def test_a_store_behind_a_url_that_changes_is_new(in_memory: Any):
    array = zarr.create_array(store="memory://data/a.zarr", shape=(4, 4), dtype="u1", chunks=(2, 2))
    array[:] = np.arange(16).reshape(4, 4)
    item = SimpleNamespace(
        role="training", inputs=(Item("memory://data/a.zarr"),), targets=None, input_form=Form("zarr"), target_form=None
    )
    before: Any = holdings([item], None)  # type: ignore[list-item]
    assert holdings([item], before).digest() == before.digest()  # type: ignore[list-item]
    array[3, 3] = 99
    now = holdings([item], before)  # type: ignore[list-item]
    assert changes(before, now)["training inputs"] == Changes(changed=("memory://data/a.zarr",))


def test_a_file_that_vanishes_is_named(tmp_path: Path):
    put(tmp_path / "a", b"a")
    found = survey(tmp_path)
    (tmp_path / "a").unlink()
    with pytest.raises(RunFailed, match=rf"^{tmp_path}/a: cannot be read: No such file or directory$"):
        holdings([found], None)


@pytest.mark.parametrize("text", ["", "{}", '{"sides": 3}', '{"sides": {"a": {"b": 1}}}', '{"sides": {"a": []}}'])
def test_what_is_no_note_is_told(text: str):
    with pytest.raises(ValueError):  # noqa: PT011
        Holdings.from_json(text)
