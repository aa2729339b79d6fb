from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rml_core.config.problem import RunFailed
from rml_core.engine import log
from rml_core.engine.log import LogFiles

QUIET = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(
    ("outfile", "names"),
    [
        ("out.txt", ["out_train.txt", "out_test.txt", "out_metrics.jsonl", "out_report.png"]),
        ("run", ["run_train", "run_test", "run_metrics.jsonl", "run_report.png"]),
        ("v1.2.log", ["v1.2_train.log", "v1.2_test.log", "v1.2_metrics.jsonl", "v1.2_report.png"]),
    ],
)
def test_names(outfile: str, names: list[str]):
    files = LogFiles.beside(Path("/logs") / outfile)
    assert [str(path) for path in (files.train, files.test, files.metrics, files.report)] == [
        f"/logs/{name}" for name in names
    ]


@given(st.floats(width=32), st.floats(width=32))
@settings(deadline=None)
def test_a_float32_is_read_back_as_it_was(loss: float, norm: float):
    line = log.train_line(2, 13, 0.1234567, loss, norm)
    assert line.endswith("\n")
    epoch, batch, time_s, *figures = line.split()
    assert (epoch, batch, time_s) == ("2", "13", "0.123457")
    assert np.array_equal(np.array(figures, np.float32), np.array([loss, norm], np.float32), equal_nan=True)


def test_lines():
    assert log.train_line(1, 2, 3.0, 0.5, 2.0) == "1 2 3.000000 0.5 2\n"
    assert log.test_line(1, 3.0, math.nan, math.nan) == "1 3.000000 nan nan\n"
    row = {"epoch": 1, "a": math.nan, "b": [1.0, math.inf], "c": {"d": -math.inf, "e": "text"}}
    assert log.metrics_line(row) == '{"epoch": 1, "a": null, "b": [1.0, null], "c": {"d": null, "e": "text"}}\n'


def whole(epochs: int, batches: int, evaluates: bool) -> dict[str, list[tuple[tuple[int, int], str]]]:
    """The lines of each log with the position after which they are written."""
    every = range(1, epochs + 1)
    of_epochs = [(epoch, batches) for epoch in every]
    return {
        "train": [((e, b), log.train_line(e, b, e + b / 100, e / b, b)) for e in every for b in range(1, batches + 1)],
        "test": [(at, log.test_line(at[0], at[0], 0.5, 1 / 3)) for at in of_epochs] if evaluates else [],
        "metrics": [(at, log.metrics_line({"epoch": at[0], "loss": math.nan})) for at in of_epochs],
    }


@QUIET
@given(data=st.data(), epochs=st.integers(1, 12), batches=st.integers(1, 12), evaluates=st.booleans())
def test_cutting_and_going_on_gives_the_whole_logs(
    tmp_path: Path, data: st.DataObject, epochs: int, batches: int, evaluates: bool
):
    """A run stopped anywhere, its last line perhaps half written, resumed from any position it had saved."""
    files = LogFiles.beside(tmp_path / "out.txt")
    every = whole(epochs, batches, evaluates)
    stopped = data.draw(st.tuples(st.integers(1, epochs), st.integers(0, batches)), "stopped behind")
    for name, path in (("train", files.train), ("test", files.test), ("metrics", files.metrics)):
        # The epoch's own figures may or may not have been written when training had reached its end.
        written = [text for at, text in every[name] if at < stopped or (at == stopped and name == "train")]
        if name != "train" and stopped[1] == batches and data.draw(st.booleans(), f"{name} written"):
            written = [text for at, text in every[name] if at <= stopped]
        text = "".join(written)
        rest = "".join(text for _, text in every[name])[len(text) :]
        path.write_text(text + rest[: data.draw(st.integers(0, max(len(rest.partition("\n")[0]) - 1, 0)), "torn")])

    epoch = data.draw(st.integers(0, stopped[0] if stopped[1] == batches else stopped[0] - 1), "saved epoch")
    batch = 0
    if epoch < stopped[0] and stopped[1] and data.draw(st.booleans(), "within an epoch"):
        epoch, batch = epoch + 1, data.draw(st.integers(1, stopped[1] if epoch + 1 == stopped[0] else batches))
        if batch == batches:
            batch = 0
    if not evaluates and not batch and epoch:
        # Without an evaluation an epoch's figures are written before its checkpoint.
        rows = "".join(text for at, text in every["metrics"] if at[0] <= epoch)
        if len(files.metrics.read_text()) < len(rows):
            files.metrics.write_text(rows)

    log.start(files, epoch, batch, evaluates)
    position = (epoch, batch) if batch else (epoch, batches)
    log.append(files.train, [text for at, text in every["train"] if at > position])
    # A run that evaluates does so again where it stands.
    again = position if evaluates or batch else (epoch + 1, 0)
    for name, path in (("test", files.test), ("metrics", files.metrics)):
        log.append(path, [text for at, text in every[name] if at >= again and at[0] >= epoch])
    for name, path in (("train", files.train), ("test", files.test), ("metrics", files.metrics)):
        assert path.read_text() == "".join(text for _, text in every[name]), name


def test_a_new_run_replaces_the_logs(tmp_path: Path):
    files = LogFiles.beside(tmp_path / "out.txt")
    for path in (files.train, files.test, files.metrics):
        path.write_text("what somebody\nhad here\n")
    log.start(files, 0, 0, evaluates=True)
    assert [path.read_text() for path in (files.train, files.test, files.metrics)] == ["", "", ""]


@pytest.mark.parametrize("torn", ["2", "2 1 0.5 0.25 0.1", "\x00\x00\n", "two 1 0 0 0\n", '{"epo\n', "\n"])
def test_what_is_no_line_of_a_log_ends_it(tmp_path: Path, torn: str):
    files = LogFiles.beside(tmp_path / "out.txt")
    train = log.train_line(1, 1, 0.0, 1.0, 1.0)
    for path, line in ((files.train, train), (files.metrics, json.dumps({"epoch": 1}) + "\n")):
        path.write_text(line + torn + (line if torn.endswith("\n") else ""))
    log.start(files, 5, 0, evaluates=True)
    assert files.train.read_text() == train
    assert files.metrics.read_text() == '{"epoch": 1}\n'
    assert files.test.read_text() == ""


def test_a_log_that_cannot_be_written(tmp_path: Path):
    files = LogFiles.beside(tmp_path / "out.txt")
    files.test.mkdir()
    with pytest.raises(RunFailed) as failed:
        log.start(files, 0, 0, evaluates=True)
    assert str(failed.value) == f"{files.test}: Is a directory"
    with pytest.raises(RunFailed) as failed:
        log.append(tmp_path / "missing" / "x.txt", ["1\n"])
    assert str(failed.value) == f"{tmp_path}/missing/x.txt: No such file or directory"
    with pytest.raises(RunFailed) as failed:
        log.append(Path("/dev/full"), ["1\n"])
    assert str(failed.value) == "/dev/full: No space left on device"


def test_a_file_is_put_whole(tmp_path: Path):
    path = tmp_path / "network.dot"
    log.put(path, b"one")
    log.put(path, b"two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunFailed) as failed:
        log.put(tmp_path / "folder", b"text")
    assert str(failed.value) == f"{tmp_path}/folder: Is a directory"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "network.dot"]


def test_what_was_there_stays_until_the_new_content_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "out_report.png"
    path.write_bytes(b"earlier")

    def full(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunFailed) as failed:
        log.put(path, b"a new picture", otherwise="; the logs are there")
    assert str(failed.value) == f"{path}: No space left on device; the logs are there"
    assert path.read_bytes() == b"earlier"
    assert [each.name for each in tmp_path.iterdir()] == ["out_report.png"]


def test_a_link_beside_a_file_is_not_written_through(tmp_path: Path):
    (tmp_path / "precious").write_text("precious")
    for name in (".out_report.png", f".out_report.png.{os.getpid()}"):
        (tmp_path / name).symlink_to("precious")
    log.put(tmp_path / "out_report.png", b"new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "out_report.png").read_bytes() == b"new"
    assert not (tmp_path / "out_report.png").is_symlink()
