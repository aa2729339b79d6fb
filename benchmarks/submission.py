"""From the submission of a run file to its first batch, against the same run started by hand with a server running.

One service is put up for all rounds; its worker is warm. The clock starts with the command (`prefect deployment run`,
`rml run`) and stops when the training log has its first line. Where the time of a submitted run goes is printed from
what the server has noted of its states.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from measure import Row, interleaved, main
from phase_overhead import write_run_file

BOUND, PATIENCE = 6.0, 300.0
LOOK = 0.02

# From one of these to the next; the first is the command's start, the last the first batch.
STEPS = {
    "command": "the command: Prefect is imported, the run file checked and sent",
    "Scheduled": "until a worker asks for it",
    "Pending": "the worker takes it",
    "Submitting": "its process: Python, Prefect, torch",
    "Running": "the run: check, samples, network",
}


@contextmanager
def service(home: Path) -> Iterator[dict[str, str]]:
    """A service of its own below `home`; gives the environment of its clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "RML_"))}
    env = {**given, "HOME": str(home), "RML_STATE": str(home / "state"), "OMP_NUM_THREADS": "1"}
    env = {**env, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}
    home.mkdir()
    try:
        began = time.perf_counter()
        subprocess.run(["rml", "up", "--port", str(port)], env=env, check=True, stdout=subprocess.DEVNULL)
        print(f"rml up: {time.perf_counter() - began:.1f} s", file=sys.stderr)
        yield {**env, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_PLUGINS_ENABLED": "true"}
    finally:
        subprocess.run(["rml", "down"], env=env, check=False, stdout=subprocess.DEVNULL)


def asked(env: Mapping[str, str], path: str, body: object) -> Any:
    request = urllib.request.Request(f"{env['PREFECT_API_URL']}{path}", data=json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def until_first_batch(command: list[str], run_file: Path, env: Mapping[str, str]) -> tuple[float, float]:
    """When the command began (seconds since 1970), and how many seconds later the first batch was logged."""
    log = run_file.with_name("out_train.txt")
    log.unlink(missing_ok=True)
    began = time.time()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, cwd=run_file.parent)
    while not log.exists() or not log.stat().st_size:
        if time.time() - began > PATIENCE:
            raise RuntimeError(f"{command} has not come to its first batch")
        time.sleep(LOOK)
    seconds = time.time() - began
    process.wait()
    return began, seconds


def by_hand(run_file: Path, env: Mapping[str, str]) -> float:
    return until_first_batch(["rml", "run", run_file.name], run_file, env)[1]


def submitted(run_file: Path, env: Mapping[str, str], spent: list[dict[str, float]]) -> float:
    command = ["prefect", "deployment", "run", "rml/train", "--params", run_file.name]
    began, seconds = until_first_batch(command, run_file, env)
    while True:
        begun = {"state": {"type": {"any_": ["RUNNING", "COMPLETED", "FAILED", "CRASHED"]}}}
        body = {"flow_runs": begun, "limit": 1, "sort": "START_TIME_DESC"}
        (run,) = asked(env, "/flow_runs/filter", body)
        if run["state_type"] == "COMPLETED":
            break
        if run["state_type"] != "RUNNING":
            raise RuntimeError(f"the submitted run has failed: {run['state']['message']}")
        time.sleep(0.2)
    with urllib.request.urlopen(f"{env['PREFECT_API_URL']}/flow_run_states/?flow_run_id={run['id']}") as answer:
        states = {each["name"]: datetime.fromisoformat(each["timestamp"]).timestamp() for each in json.load(answer)}
    times = {"command": began, **{name: states[name] for name in STEPS if name in states}, "end": began + seconds}
    names = list(times)
    spent.append({name: times[after] - times[name] for name, after in pairwise(names)})
    return seconds


def rows(rounds: int, quick: bool) -> list[Row]:
    spent: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with service(folder / "home") as env:
            run_file = write_run_file(folder, 2)
            # The first run prepares the samples, and warms what is read from the disk.
            by_hand(run_file, env)
            ours, hand = interleaved(partial(submitted, run_file, env, spent), partial(by_hand, run_file, env), rounds)
    assert hand is not None
    best = min(spent, key=lambda each: sum(each.values()))
    for name, seconds in best.items():
        print(f"{seconds:6.2f} s  {STEPS[name]}", file=sys.stderr)
    print(f"{hand:6.2f} s  all of it, by hand", file=sys.stderr)
    return [Row("submission to first batch, over by hand", ours - hand, None, BOUND)]


if __name__ == "__main__":
    main(rows)
