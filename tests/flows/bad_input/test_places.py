"""Places that cannot be written, or that another run holds; arguments that are wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rml = Callable[..., tuple[int, str, str]]
RML = Path(sys.executable).with_name("rml")

CLASSES = "classes left -> 0, right -> 1\n"


def test_places_that_cannot_be_written(own: dict[str, Any], refuses: Any, tmp_path: Path):
    (tmp_path / "file").touch()
    own["outfile"] = "file/out.txt"
    own["checkpoints"]["save"] = "/proc/nowhere/checkpoints"
    own["data"]["test_output_path"] = "file"
    remedy = "    choose another place, or make this one writable"
    refuses(
        own,
        f"neural_network.outfile: {tmp_path}/file/out_train.txt cannot be written: {tmp_path}/file is a file\n{remedy}",
        "neural_network.checkpoints.save: /proc/nowhere/checkpoints cannot be written: no such file or directory\n"
        f"{remedy}",
        f"neural_network.data.test_output_path: {tmp_path}/file cannot be written: file exists\n{remedy}",
    )


def test_a_folder_in_the_place_of_a_log_file(own: dict[str, Any], refuses: Any, tmp_path: Path):
    (tmp_path / "out_test.txt").mkdir()
    (tmp_path / "network.dot").mkdir()
    own["debug"] = True
    remedy = "    choose another place, or make this one writable"
    refuses(
        own,
        f"neural_network.outfile: {tmp_path}/out_test.txt cannot be written: is a directory\n{remedy}",
        f"neural_network.debug: {tmp_path}/network.dot cannot be written: is a directory\n{remedy}",
    )


def test_a_cache_that_cannot_be_written(own: dict[str, Any], run: Rml, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/cache")
    assert run(own) == (
        1,
        "",
        "load training: samples cannot be prepared in /proc/cache/rml/prepared: No such file or directory; make room "
        "there, or set XDG_CACHE_HOME to another folder\n",
    )


def test_two_runs_at_once(own: dict[str, Any], refuses: Any, run_file: Callable[..., Path], tmp_path: Path):
    """The second is refused for each place that the first writes to; the first goes on, unharmed."""
    own["num_epochs"] = 100_000
    own["checkpoints"]["keep"] = 2
    own["data"]["preload"] = False
    first = subprocess.Popen(
        [RML, "run", run_file({"neural_network": own}, "first.json"), "--untracked"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log = tmp_path / "out_test.txt"
        until = time.monotonic() + 60
        while not (log.exists() and log.stat().st_size):
            assert time.monotonic() < until
            assert first.poll() is None, first.communicate()
            time.sleep(0.05)
        os.kill(first.pid, signal.SIGSTOP)
        remedy = "    wait until it has ended, or give this run a place of its own"
        places = {
            "outfile": f"neural_network.outfile: another run is writing to {tmp_path}/out_train.txt\n{remedy}",
            "save": f"neural_network.checkpoints.save: another run is writing to {tmp_path}/checkpoints\n{remedy}",
            "output": f"neural_network.data.test_output_path: another run is writing to {tmp_path}/predictions\n"
            f"{remedy}",
        }
        refuses(own, *places.values())
        for kept, problem in places.items():
            second = json.loads(json.dumps(own))
            if kept != "outfile":
                second["outfile"] = "second.txt"
            if kept != "save":
                del second["checkpoints"]
            if kept != "output":
                del second["data"]["test_output_path"]
            (tmp_path / "second_train.txt").touch()
            refuses(second, problem)
        os.kill(first.pid, signal.SIGCONT)
        first.terminate()
        output, errors = first.communicate(timeout=60)
    finally:
        first.kill()
        first.wait()
    path = tmp_path / "checkpoints" / "model_checkpoint_interrupted.pt"
    whole = not path.exists()
    assert first.returncode == 143, errors
    assert whole or errors == f"interrupted; --resume auto goes on from {path}\n"
    assert output.startswith(f"{CLASSES}epoch 1/100000  loss ")
    lines = [tuple(map(int, line.split()[:2])) for line in (tmp_path / "out_train.txt").read_text().splitlines()]
    assert lines == [(1 + index // 6, 1 + index % 6) for index in range(len(lines))]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--ranks", 2), "--ranks: 2 ranks are not available yet\n    allowed: 1"),
        (("--ranks", 0), "--ranks: 0 ranks are not available yet\n    allowed: 1"),
        (("--app", "pde"), '--app: app "pde" is not available yet\n    allowed: dnn'),
        (("--app", "GAN"), '--app: app "gan" is not available yet\n    allowed: dnn'),
        (("--app", "dn"), '--app: unknown app "dn"\n    allowed: dnn\n    did you mean "dnn"?'),
        (("--resume", "3"), '--resume: "3" does not fit\n    allowed: auto, or left out to start anew'),
        (
            ("--set", "data.batch_size"),
            "--set data.batch_size: cannot be set\n    allowed: KEY=VALUE, as in data.batch_size=32",
        ),
        (
            ("--set", "data.batch_size.x=2"),
            "--set data.batch_size.x=2: cannot be set\n    allowed: KEY=VALUE, as in data.batch_size=32",
        ),
        (("--set", "=2"), "--set =2: cannot be set\n    allowed: KEY=VALUE, as in data.batch_size=32"),
        (
            ("--set", "data.batch_size=two"),
            'neural_network.data.batch_size: "two" does not fit\n    allowed: an integer',
        ),
        (
            ("--set", "checkpoints.intervall=2"),
            "neural_network.checkpoints.intervall: unknown key\n"
            "    allowed: save, interval, load, resume, keep, best\n"
            '    did you mean "interval"?',
        ),
    ],
)
def test_bad_arguments(own: dict[str, Any], refuses: Any, arguments: tuple[object, ...], problem: str):
    refuses(own, problem, arguments=arguments)


OF_VARIABLES = (
    'RML_THREADS: "x" does not fit\n    allowed: a number of threads, 1 or more',
    'RML_MEMORY: "much" does not fit\n    allowed: bytes, as "2GB", "512MiB" or 500000000; 1MiB or more',
)


def test_every_bad_argument_is_said_at_once(own: dict[str, Any], refuses: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RML_THREADS", "x")
    monkeypatch.setenv("RML_MEMORY", "much")
    refuses(
        own,
        *OF_VARIABLES,
        "--ranks: 2 ranks are not available yet\n    allowed: 1",
        '--resume: "latest" does not fit\n    allowed: auto, or left out to start anew',
        '--scheduler: "nonsense" does not fit\n    allowed: an address, as tcp://host:8786',
        arguments=("--ranks", 2, "--resume", "latest", "--scheduler", "nonsense"),
    )


@pytest.mark.parametrize("command", [("validate",), ("validate", "--skip-data"), ("plan",)])
def test_variables_are_held_up_with_what_else_there_is(
    own: dict[str, Any],
    run_file: Callable[[object], Path],
    rml: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
):
    monkeypatch.setenv("RML_THREADS", "x")
    monkeypatch.setenv("RML_MEMORY", "much")
    own["checkpoints"] = {"interval": 0}
    file = run_file({"neural_network": own})
    problem = "neural_network.checkpoints.interval: 0 does not fit\n    allowed: greater than or equal to 1"
    problems = "\n".join((*OF_VARIABLES, problem))
    assert rml(*command, file) == (2, "", f"{file}: 3 problems\n\n{problems}\n")
