"""Cleaning beside runs: those that begin at that moment, and those of a server whose samples are cached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Runs a run file so many times; what it prepares is removed again and again meanwhile.
RUNS = """
import json, sys
from pathlib import Path
from flows.phases import as_it_is, execute
from rml_core.check import check
from rml_core.run import read
mapping, base = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
base.mkdir(exist_ok=True)
for _ in range(int(sys.argv[3])):
    execute(check(read(mapping, base)), as_it_is)
"""


def test_runs_that_begin_while_samples_are_removed(classification: dict[str, Any], tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (tmp_path / "run.json").write_text(json.dumps(classification))
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RUNS, str(tmp_path / "run.json"), str(tmp_path / name), "6"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "other")
    ]
    removed: list[int] = []
    ended = threading.Event()

    def clean() -> None:
        from flows.cleaning import clean as cleaned

        while not ended.is_set():
            removed.append(len(cleaned(0.0, 0).removed))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        cleaner = threading.Thread(target=clean)
        cleaner.start()
        try:
            said = [process.communicate(timeout=800)[1] for process in runs]
        finally:
            ended.set()
            cleaner.join()
            for process in runs:
                process.kill()
    assert [process.returncode for process in runs] == [0, 0], said
    assert sum(removed) > 0
    assert [path for path in (tmp_path / "cache" / "rml" / "prepared").iterdir() if path.name.startswith(".")] == []
    one, other = ((tmp_path / name / "out_train.txt").read_text().splitlines() for name in ("one", "other"))
    assert [line.split()[3:] for line in one] == [line.split()[3:] for line in other]


def test_what_is_cached_on_the_server_is_made_again(
    guarded: Any, classification: dict[str, Any], tmp_path: Path
) -> None:
    section = {**classification["neural_network"], "num_epochs": 1}
    loads = []
    for cleaned in (True, False, True):
        if cleaned:
            run = guarded.create("clean", {"older_than": "0m"})
            assert guarded.wait(run)["state_type"] == "COMPLETED"
            # The log of a run comes a moment after its end.
            end = time.monotonic() + 60
            while "of prepared samples stay" not in guarded.log(run):
                assert time.monotonic() < end
                time.sleep(0.2)
        run = guarded.submit(section, base=str(tmp_path))
        assert guarded.wait(run)["state_type"] == "COMPLETED"
        body = {"task_runs": {"flow_run_id": {"any_": [run]}}}
        loads.append({each["name"]: each["state_name"] for each in guarded.call("/task_runs/filter", body)})
    assert [phases["load training"] for phases in loads] == ["Completed", "Cached", "Completed"]
    assert [phases["load test"] for phases in loads] == ["Completed", "Cached", "Completed"]
