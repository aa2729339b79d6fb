"""What `rml clean` removes, what it keeps, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cleaning import CLAIM, clean, clean_command, said, seconds, size
from flows.phases import execute
from rml_core.check import check
from rml_core.config.problem import Refused
from rml_core.config.unfinished import another, unfinished
from rml_core.data.prepared_folders import in_use
from rml_core.engine.claim import claimed
from rml_core.run import read

DAY = 86400.0
Rml = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of this test alone; temporary files and cached results too."""
    for name in ("temporary", "prefect/storage", "cache/rml/prepared", "cache/rml/networks"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_LOCAL_STORAGE_PATH", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache" / "rml"


def aged(path: Path, days: float) -> Path:
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def prepared(cache: Path, name: str, days: float, size: int = 100_000) -> Path:
    folder = cache / "prepared" / name
    folder.mkdir()
    (folder / "inputs.npy").write_bytes(os.urandom(size))
    (folder / "manifest.json").write_text("{}")
    aged(folder / "manifest.json", days)
    return folder


@pytest.fixture(scope="session")
def dead() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_samples_that_were_not_used_for_long_go(cache: Path) -> None:
    old, young = prepared(cache, "old", 31), prepared(cache, "young", 29)
    done = clean(30 * DAY)
    assert [(each.what, each.path, each.why) for each in done.removed] == [
        ("prepared samples", old, "not used for 31 days")
    ]
    assert 100_000 <= done.freed < 200_000
    assert done.kept >= 100_000
    assert list((cache / "prepared").iterdir()) == [young]


def test_the_oldest_go_until_the_rest_is_small_enough(cache: Path) -> None:
    for days in (3, 1, 2):
        prepared(cache, str(days), days)
    done = clean(30 * DAY, 250_000)
    assert [each.path.name for each in done.removed] == ["3"]
    assert done.removed[0].why == "all together are more than 250 kB, and others were used since"
    clean(None, 120_000)
    assert [path.name for path in (cache / "prepared").iterdir()] == ["1"]
    assert clean(None, None).removed == []
    clean(None, 0)
    assert list((cache / "prepared").iterdir()) == []


def test_what_a_run_uses_stays_and_counts(cache: Path) -> None:
    first, second = prepared(cache, "first", 40), prepared(cache, "second", 35)
    with in_use(first):
        aged(first / "manifest.json", 40)
        done = clean(30 * DAY, 0)
    assert done.in_use == [first]
    assert [each.path for each in done.removed] == [second]
    assert done.kept >= 100_000
    assert done.lines(dry_run=False)[1] == f"{first}: kept, a run uses it"


@pytest.mark.parametrize("transforms", [[], [{"resize": [12, 12]}]])
def test_what_a_run_has_prepared_stays_from_the_first_moment(
    classification: dict[str, Any], transforms: list[dict[str, Any]], cache: Path, tmp_path: Path
) -> None:
    classification["neural_network"]["data"].update(preload=True, transforms=transforms)
    calls: list[str] = []

    def cleaned_before_use(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        calls.append(name)
        given = function(*arguments)
        assert clean(0.0, 0).removed == []
        return given

    execute(check(read(classification, tmp_path)), cleaned_before_use)
    assert len(calls) == len(set(calls))
    assert {"load training", "load test"} < set(calls)
    # Other than by a run that is over.
    assert len(clean(0.0, 0).removed) == len(transforms) * 2 + 2


def test_a_dry_run_only_says_what_would_go(cache: Path, dead: int) -> None:
    folder = prepared(cache, "old", 31, size=100_000)
    left = aged_tree(cache / f".output_3.h5.{dead}")
    (Path(tempfile.gettempdir()) / f"rml-{os.getuid()}-{'0' * 24}.claim").touch()
    done = clean(30 * DAY, dry_run=True)
    assert folder.exists()
    assert left.exists()
    assert done.lines(dry_run=True) == [
        f"{folder}: prepared samples, {said(done.removed[0].size)}, not used for 31 days",
        f"{left}: unfinished, 4.1 kB, process {dead} is gone",
        f"{tempfile.gettempdir()}: 1 claim of runs that are gone",
        f"3 things would be removed, {said(done.freed)}; 0 B of prepared samples would stay",
    ]


def test_networks_go_unless_something_needs_them(cache: Path) -> None:
    needed, old = (aged_tree(cache / "networks" / f"{each * 24}.json") for each in "ab")
    young = cache / "networks" / f"{'c' * 24}.json"
    young.touch()
    assert clean(30 * DAY).removed == []
    done = clean(30 * DAY, networks_in_use=lambda: {needed.name, "other.json"})
    assert [each.path for each in done.removed] == [old]
    assert sorted((cache / "networks").iterdir()) == [needed, young]


def test_networks_stay_where_nobody_can_say_what_needs_them(cache: Path) -> None:
    def away() -> set[str]:
        raise OSError("Connection refused")

    aged_tree(cache / "networks" / f"{'a' * 24}.json")
    done = clean(30 * DAY, networks_in_use=away)
    assert done.removed == []
    assert done.failed == ["networks stay: the server cannot say which are needed (Connection refused)"]


def test_networks_stay_where_there_is_no_server_to_ask(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.tracking.is_configured", lambda: False)
    network = aged_tree(cache / "networks" / f"{'a' * 24}.json")
    assert clean_command([], "30d", None, False) == ["0 things removed, 0 B; 0 B of prepared samples stay"]
    assert network.exists()


def test_old_cached_results_go_and_only_ours(cache: Path, tmp_path: Path) -> None:
    storage = tmp_path / "prefect" / "storage"
    ours, others = (aged_tree(storage / name) for name in ("rml-0123", "0123"))
    (storage / "rml-4567").touch()
    assert [each.path for each in clean(30 * DAY).removed] == [ours]
    assert others.exists()


def test_claims_of_runs_that_are_gone_go(cache: Path, tmp_path: Path) -> None:
    left = Path(tempfile.gettempdir()) / f"rml-{os.getuid()}-{'0' * 24}.claim"
    left.touch()
    with claimed([], [("neural_network.data.hdf5_outfile", tmp_path / "prediction.h5")]):
        assert len(list(left.parent.glob("*.claim"))) == 2
        assert [(each.what, each.path) for each in clean(None).removed] == [(CLAIM, left)]
        assert len(list(left.parent.glob("*.claim"))) == 1


def aged_tree(path: Path, days: float = 31, size: int = 4096) -> Path:
    path.write_bytes(bytes(size))
    return aged(path, days)


def test_what_dead_processes_were_writing_goes(cache: Path, tmp_path: Path, dead: int) -> None:
    results = tmp_path / "results"
    results.mkdir()

    def of(process: int, path: Path) -> Path:
        return path.with_name(f"{path.name.rpartition('.')[0]}.{process}")

    names = [unfinished(results / name) for name in ("model_checkpoint_3.pt", "output_3.h5")]
    names += [another(results / "prediction.h5"), unfinished(results / "prediction.h5", ".spool")]
    for path in names:
        aged_tree(of(dead, path))
        aged_tree(of(os.getpid(), path))
    for stranger in (".notes.txt", f".notes.{dead}", f"output_3.h5.{dead}"):
        aged_tree(results / stranger)
    recent = of(dead, unfinished(results / "output_4.h5"))
    recent.touch()
    assert clean(None).removed == []
    done = clean(None, below=[results])
    assert {each.path for each in done.removed} == {of(dead, path) for path in names}
    assert len(list(results.iterdir())) == 8


def test_scratch_of_dead_processes_goes(cache: Path, dead: int) -> None:
    folders = []
    for process in (dead, os.getpid()):
        folder = Path(tempfile.mkdtemp(prefix=f"rml-{process}-"))
        aged_tree(folder / "output_1.h5")
        folders.append(aged(folder, 31))
    aged(Path(tempfile.mkdtemp(prefix="other-")), 31)
    done = clean(None)
    assert [each.path for each in done.removed] == folders[:1]
    assert len(list(Path(tempfile.gettempdir()).iterdir())) == 2


def test_what_may_not_be_removed_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepared(cache, "old", 31)

    def refused(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refused)
    done = clean(30 * DAY)
    assert done.removed == []
    assert done.failed == [f"{folder} cannot be removed: Permission denied"]
    assert done.lines(dry_run=False)[-2:] == [
        f"warning: {folder} cannot be removed: Permission denied",
        f"0 things removed, 0 B; {said(done.kept)} of prepared samples stay",
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("30d", 30 * DAY), ("12h", 0.5 * DAY), ("1.5 h", 5400.0), ("90m", 5400.0), ("2w", 14 * DAY)]
)
def test_ages(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value", "again"),
    [("20GB", 20 * 10**9, "20 GB"), ("1.5 gb", 15 * 10**8, "1.5 GB"), ("512", 512, "512 B"), ("0", 0, "0 B")],
)
def test_sizes(text: str, value: int, again: str) -> None:
    assert size(text) == value
    assert said(value) == again


def test_what_is_no_age_or_size_is_refused() -> None:
    with pytest.raises(Refused) as age:
        seconds("soon")
    assert str(age.value) == '--older-than: "soon" does not fit\n    allowed: a number and m, h, d or w, as 30d'
    with pytest.raises(Refused) as large:
        size("20XB")
    assert str(large.value) == (
        '--larger-than: "20XB" does not fit\n    allowed: a number and kB, MB, GB or TB, as 20GB'
    )


def test_the_command(cache: Path, tmp_path: Path, dead: int, rml: Rml) -> None:
    folder = prepared(cache, "old", 8)
    left = aged_tree(tmp_path / f".output_3.h5.{dead}")
    status, output, errors = rml("clean", "--older-than", "1w", tmp_path)
    assert (status, errors) == (0, "")
    assert output.splitlines()[1:2] == [f"{left}: unfinished, 4.1 kB, process {dead} is gone"]
    assert output.endswith("0 B of prepared samples stay\n")
    assert not folder.exists()
    assert not left.exists()


def test_the_command_says_all_that_does_not_fit(cache: Path, tmp_path: Path, rml: Rml) -> None:
    status, _, errors = rml("clean", "--older-than", "x", "--larger-than", "y", tmp_path / "nowhere")
    assert status == 2
    assert errors == (
        "rml clean: 3 problems\n\n"
        '--older-than: "x" does not fit\n    allowed: a number and m, h, d or w, as 30d\n'
        '--larger-than: "y" does not fit\n    allowed: a number and kB, MB, GB or TB, as 20GB\n'
        f"FOLDER: {tmp_path / 'nowhere'} is no folder\n"
    )
