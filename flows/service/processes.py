"""The processes of a service: those that carry its folder's name in their environment."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from flows.service.state import State

# Handed down to all that a service starts: a variable that nobody sets by hand.
MARK = "RML_SERVICE"
FLOW_RUN = "PREFECT__FLOW_RUN_ID"


def of(state: State) -> list[psutil.Process]:
    """Every process of the service that lives, this one excepted."""
    found = []
    for process in psutil.process_iter():
        if process.pid != os.getpid() and _environment(process).get(MARK) == str(state.folder):
            found.append(process)
    return found


def of_runs(state: State) -> dict[str, list[psutil.Process]]:
    """Of each flow run, by its id, the processes that live."""
    runs: dict[str, list[psutil.Process]] = {}
    for process in of(state):
        run = _environment(process).get(FLOW_RUN)
        if run:
            runs.setdefault(run, []).append(process)
    return runs


def runs_here() -> set[str]:
    """The flow runs that processes of this machine work on, whosever worker has begun them, as far as this user may
    know."""
    found = (_environment(process).get(FLOW_RUN) for process in psutil.process_iter())
    return {run for run in found if run}


def variables(pid: int | None) -> dict[str, str]:
    """The environment of a process; nothing where it is gone, or another user's."""
    try:
        return _environment(psutil.Process(pid)) if pid is not None else {}
    except psutil.Error:
        return {}


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return {}
        environment: dict[str, str] = process.environ()
    except (psutil.Error, OSError):
        return {}
    return environment


def tell(found: list[psutil.Process], number: signal.Signals) -> None:
    for process in found:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue


def end(found: list[psutil.Process], patience: float) -> None:
    """SIGTERM, and SIGKILL for what is there after `patience` seconds."""
    tell(found, signal.SIGTERM)
    _, left = psutil.wait_procs(found, timeout=patience)
    tell(left, signal.SIGKILL)
    psutil.wait_procs(left, timeout=5)


def number_in(path: Path) -> int | None:
    try:
        number = int(path.read_text())
    except (OSError, ValueError):
        return None
    return number if number > 0 else None


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def listens(state: State, port: int) -> bool:
    """Whether what answers at a port is the service's own: another one may have it. What may not be seen is taken for
    granted."""
    for process in of(state):
        try:
            found = process.net_connections(kind="tcp")
        except psutil.NoSuchProcess:
            continue
        except (psutil.Error, OSError):
            return True
        if any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found):
            return True
    return False


def on_port(host: str, port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return "another process"
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                process = psutil.Process(connection.pid)
                return f"{process.name()} (process {process.pid}: {' '.join(process.cmdline())[:120]})"
            except psutil.Error:
                break
    return "another process"


def wait_until_gone(state: State, patience: float) -> list[psutil.Process]:
    """What is left of a service's processes after `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        left = of(state)
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.1)


def wait_until_gone_of(found: list[psutil.Process]) -> None:
    psutil.wait_procs(found, timeout=10)
