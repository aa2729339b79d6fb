"""What is seen of a run: a bar on a terminal, a line an epoch elsewhere, the files at the end."""

from __future__ import annotations

import io
import math
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rich

from flows.console import OF_MANY, Bar, EpochLines, line_of, say_written
from rml_core.engine.progress import Blocks, Progress
from tasks.evaluate import AssembledEpoch, EvaluatedEpoch
from tasks.ranks import Ranks
from tasks.train_epoch import TrainedEpoch

Rml = Callable[..., tuple[int, str, str]]
RunFile = Callable[..., Path]
RML = Path(sys.executable).with_name("rml")
NOBODY = Ranks("", 1)


def trained(loss: float) -> TrainedEpoch:
    return TrainedEpoch(NOBODY, epoch=3, batch=0, loss=loss, learning_rate=0.1, samples_per_s=1234.4, seconds=2.0)


def evaluated(loss: float, accuracy: float) -> EvaluatedEpoch:
    return EvaluatedEpoch(NOBODY, epoch=3, loss=loss, accuracy=accuracy, samples_per_s=5678.0)


@pytest.mark.parametrize(
    ("training", "evaluation", "line"),
    [
        (trained(0.271828), None, "epoch 3/12  loss 0.2718  1234 samples/s"),
        (
            trained(0.271828),
            evaluated(0.314159, 0.95),
            "epoch 3/12  loss 0.2718  test loss 0.3142  accuracy 0.9500  1234 samples/s",
        ),
        (trained(1e-6), evaluated(2.5, math.nan), "epoch 3/12  loss 1e-06  test loss 2.5  1234 samples/s"),
        (None, evaluated(0.314159, 0.95), "evaluation of epoch 3  test loss 0.3142  accuracy 0.9500  5678 samples/s"),
        (None, evaluated(math.nan, math.nan), "evaluation of epoch 3  5678 samples/s"),
    ],
    ids=["training", "both", "values", "evaluation", "inference"],
)
def test_line_of(training: TrainedEpoch | None, evaluation: EvaluatedEpoch | None, line: str):
    assert line_of(training, evaluation, 12) == line


def test_the_files_that_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Short where they lie below the working directory."""
    monkeypatch.chdir(tmp_path)
    say_written([(tmp_path / "logs" / "out_train.txt", ""), (Path("/elsewhere/a.pt"), "the newest of 3")], 61.23)
    assert capsys.readouterr().out == (
        "done in 61.2 s; written:\n  logs/out_train.txt\n  /elsewhere/a.pt, the newest of 3\n"
    )
    say_written([], 1.0)
    assert capsys.readouterr().out == "done in 1.0 s; nothing was written: set outfile to keep logs\n"


LINE = r"epoch {}/3  loss \d\.\d+  test loss \d\.\d+  accuracy [01]\.\d{{4}}  \d+ samples/s"


def test_where_there_is_no_terminal(classification: dict[str, Any], rml: Rml, run_file: RunFile, tmp_path: Path):
    status, output, errors = rml("run", run_file(classification), "--untracked")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == "classes left -> 0, right -> 1"
    for epoch in (1, 2, 3):
        assert re.fullmatch(LINE.format(epoch), lines[epoch])
    assert re.fullmatch(r"done in \d+\.\d s; written:", lines[4])
    assert [Path(line.strip()).name for line in lines[5:]] == [
        "out_train.txt",
        "out_test.txt",
        "out_metrics.jsonl",
        "out_report.png",
        "model_checkpoint_3.pt, the newest of 3",
        "output_3.h5",
    ]


def test_a_run_without_evaluation_and_one_without_targets(
    classification: dict[str, Any], rml: Rml, run_file: RunFile, pictures: Path
):
    section = classification["neural_network"]
    section["num_epochs"] = 1
    del section["data"]["test_input_path"], section["data"]["test_output_path"], section["outfile"]
    output = rml("run", run_file(classification), "--untracked")[1]
    assert re.fullmatch(r"epoch 1/1  loss \d\.\d+  \d+ samples/s", output.splitlines()[1])

    del section["data"]["input_path"], section["data"]["target_type"], section["loss"], section["checkpoints"]
    section["data"]["test_input_path"] = str(pictures / "test")
    status, output, errors = rml("run", run_file(classification), "--untracked")
    unlearned = "neural_network.checkpoints.load: is missing: nothing is trained, and the weights stay as they begin"
    assert (status, errors) == (0, f"warning: {unlearned}\n")
    first, second = output.splitlines()
    assert re.fullmatch(r"evaluation of epoch 1  \d+ samples/s", first)
    assert re.fullmatch(r"done in \d+\.\d s; nothing was written: set outfile to keep logs", second)


# --- a terminal

CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(command: list[object]) -> tuple[int, str]:
    """(exit status, all that the terminal got) of a command whose standard streams are a pseudo-terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        [str(part) for part in command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    )
    os.close(theirs)
    received = b""
    try:
        while part := os.read(ours, 65536):
            received += part
    except OSError:
        pass  # Linux's way to say that nobody has the other end any more
    finally:
        os.close(ours)
        process.wait(timeout=60)
    return process.returncode, received.decode()


def test_on_a_terminal_a_bar_runs_and_leaves_the_line(classification: dict[str, Any], run_file: RunFile):
    status, text = on_a_terminal([RML, "run", run_file(classification), "--untracked"])
    assert status == 0, text
    for epoch in (1, 2, 3):
        bar = rf"epoch {epoch}/3 [━╸╺ ]+ \d/6 loss \d\.\d+  \d+ samples/s (-:--:--|\d:\d\d:\d\d)"
        assert re.search(bar, CODES.sub("", text)), text
    # What stays: each bar is erased before its epoch's line.
    lines = [CODES.sub("", line.rpartition("\r")[2]).strip() for line in text.replace("\r\n", "\n").split("\n")]
    kept = [line for line in lines if re.fullmatch(LINE.format(r"\d"), line)]
    assert len(kept) == 3
    assert text.rstrip().endswith("output_3.h5")
    assert "\x1b[?25h" in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")


@pytest.fixture
def terminal() -> Iterator[tuple[io.StringIO, list[float]]]:
    """rich's console writes to a text, as to a terminal; its clock stands at the number in the list."""
    text, clock = io.StringIO(), [0.0]
    rich.reconfigure(file=text, force_terminal=True, width=100, get_time=lambda: clock[0])
    yield text, clock
    rich.reconfigure()


def test_the_bar_knows_the_time_that_is_left(terminal: tuple[io.StringIO, list[float]]):
    text, clock = terminal
    bar = Bar(5)
    bar(Progress(epoch=2, batch=20, batches=100, loss=0.5, samples_per_s=640.0))
    clock[0] = 10.0
    bar(Progress(epoch=2, batch=40, batches=100, loss=0.25, samples_per_s=128.0))
    bar(object())
    shown = CODES.sub("", text.getvalue())
    assert re.search(r"epoch 2/5 [━╸╺ ]+ +\d+/100 loss 0\.5  640 samples/s -:--:--", shown), shown
    assert re.search(r"epoch 2/5 [━╸╺ ]+ 40/100 loss 0\.25  128 samples/s 0:00:30", shown), shown


def test_the_bar_of_a_volume_ends_with_its_last_block(terminal: tuple[io.StringIO, list[float]]):
    text, clock = terminal
    bar = Bar(1)
    for done, seconds in ((20, 2.0), (40, 4.0), (100, 10.0)):
        clock[0] = seconds
        bar(Blocks("evaluate epoch 1", done, 100, done * 1_000_000, seconds))
    assert bar._bar is None
    bar(Blocks("assemble prediction.h5", 1, 3, 0, 1.0))
    bar.end()
    shown = CODES.sub("", text.getvalue())
    assert re.search(r"evaluate epoch 1 [━╸╺ ]+ 100/100 10 MB/s 0:00:00", shown), shown
    assert re.search(r"assemble prediction.h5 [━╸╺ ]+ 1/3 +-:--:--", shown), shown


def test_the_line_of_an_epoch_is_complete_with_what_is_assembled(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="rml")
    ranks = Ranks("", 1)
    lines = EpochLines(3, evaluates=True, assembles=True)
    lines(TrainedEpoch(ranks, 1, 0, 0.5, 0.1, 10.0, 1.0))
    lines(EvaluatedEpoch(ranks, 1, 0.25, 0.5, 20.0))
    assert not caplog.messages
    sets = {"tiles": {"accuracy": 0.75}, "bricks": {"accuracy": math.nan, "mae": 0.0625}, "none": {}}
    lines(AssembledEpoch(ranks, 1, sets))
    lines(EvaluatedEpoch(ranks, 1, math.nan, math.nan, 20.0))
    lines(AssembledEpoch(ranks, 1, {}))
    assert caplog.messages == [
        "epoch 1/3  loss 0.5  test loss 0.25  accuracy 0.5000  assembled tiles 0.7500, bricks mae 0.0625  10 samples/s",
        "evaluation of epoch 1  20 samples/s",
    ]


def test_of_so_many_epochs_that_not_each_need_be_told_the_last_one_is(caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="rml")
    for last in (100, 101):
        lines = EpochLines(last, evaluates=False)
        for epoch in (1, last):
            lines(TrainedEpoch(Ranks("", 1), epoch, 0, 0.5, 0.1, 10.0, 1.0))
    assert [getattr(record, OF_MANY) for record in caplog.records] == [False, False, True, False]
