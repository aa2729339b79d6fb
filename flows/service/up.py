"""`rml up`: the server, the workers, and what the server is told."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from flows.attempt import most_restarts
from flows.service import api, notify, processes, profile, runs, survival
from flows.service.environment import DATABASE, PASSWORD, WEBHOOK, environment
from flows.service.limits import gpus
from flows.service.state import NAMING, Options, State, chosen
from flows.service.supervisor import SERVER, WORKERS, Supervisor, log_end
from rml_core.config.limits import memory_limit
from rml_core.config.problem import Problem, Refused, RunFailed, collect
from tasks.devices import runs_allowed
from tasks.ranks import threads

# What a service that is up keeps to: whom it trusts, and where its server has what it knows.
FIXED = ("RML_ROOTS", "RML_SCHEDULERS", PASSWORD, DATABASE)
# A new database is made within this time even where eight others want the machine.
PATIENCE = 240.0
# So often the supervisor starts a server that dies until it is said that it does not start.
STARTS = 3


def up(
    state: State,
    *,
    host: str | None,
    port: int | None,
    gpu_runs: int | None,
    cpu_runs: int | None,
    webhook: str | None = None,
) -> list[str]:
    """Put a service up, or bring what there is of it in order; gives the lines to be printed. `webhook`: whom it tells
    of what happens, "none": nobody any more; left out, `RML_WEBHOOK`, else as before.

    Raises:
        Refused: before anything was started.
        RunFailed: something does not start.
    """
    webhook = webhook or os.environ.get(WEBHOOK) or None
    # A service keeps the variables that it is put up with: runs would be refused until it is taken down.
    collect(lambda: notify.check(webhook), runs_allowed, most_restarts, threads, memory_limit, survival.check)
    state.make()
    with state.held(), api.reached():
        before = state.options()
        options = chosen(
            before, gpus(), os.cpu_count() or 1, host=host, port=port, gpu_runs=gpu_runs, cpu_runs=cpu_runs
        )
        supervisor = Supervisor(state)
        runs_already = supervisor.is_up()
        if runs_already and before is not None and (before.host, before.port) != (options.host, options.port):
            what = f"the service in {state.folder} is up at {before.url}"
            raise Refused([Problem("", what, remedy="take it down first: `rml down`")])
        if runs_already:
            _refuse_other_variables(state, processes.variables(processes.number_in(state.pid)))
        else:
            _clear(state)
            _check_port(options)
            _check_database(state)
        around = environment(state, options)
        user_profiles = profile.profiles_path()
        os.environ.update({key: value for key, value in around.items() if os.environ.get(key) != value})
        state.keep(options)
        supervisor.write(options)
        if not runs_already:
            supervisor.begin(around)
        began = datetime.now(UTC)
        logged = _length(state.logs / f"{SERVER}.log")
        supervisor.start(SERVER)
        _import_meanwhile()
        try:
            _wait_for_server(state, supervisor, options, logged)
        except RunFailed:
            # What was up before stays: its runs go on without the server.
            if not runs_already:
                supervisor.end()
            raise
        from flows.service import registration

        registration.pools(options)
        registration.devices(options)
        left_out = registration.deployments(options)
        notify.keep(options, webhook)
        registration.automations(options)
        profile_lines = _profile_lines(user_profiles, state, options)
        refused = []
        if not runs_already:
            lost = runs.without_process(options, began)
            refused += runs.put_back(options, lost, "its process was gone when the service came up").refused
        for pool, taken in zip(WORKERS, (options.gpu_runs, options.cpu_runs), strict=True):
            if taken:
                supervisor.start(pool)
            else:
                supervisor.stop(pool)
        _wait_for_workers(state, supervisor, options)
        # The server may have taken a run that waited over night for one whose process is gone.
        refused += runs.put_back(options, runs.noted(state), runs.TAKEN_DOWN, only=("CRASHED",)).refused
        return [*_said(state, options), *left_out, *refused, *profile_lines]


def _refuse_other_variables(state: State, has: Mapping[str, str], given: Mapping[str, str] = os.environ) -> None:
    """Its processes have the environment in which they were put up: what is set otherwise by now would not hold."""
    if has:
        remedy = "take it down first: `rml down`; or unset the variable"
        problems = [
            Problem(name, f"the service in {state.folder} is up with another value, or none", remedy=remedy)
            for name in FIXED
            if given.get(name) and given[name] != has.get(name)
        ]
        if problems:
            raise Refused(problems)


def _clear(state: State) -> None:
    """End what a supervisor that died has left, without harm to its runs: they go on, and report to the new server."""
    in_runs = {process.pid for found in processes.of_runs(state).values() for process in found}
    left = [process for process in processes.of(state) if process.pid not in in_runs]
    # SIGKILL: on SIGTERM a worker would end its runs.
    processes.tell(left, signal.SIGKILL)
    processes.wait_until_gone_of(left)
    for stale in (state.socket, state.pid):
        stale.unlink(missing_ok=True)


def _check_port(options: Options) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        allowed = "127.0.0.1 (this machine alone), 0.0.0.0 (all), or one of its addresses"
        raise Refused([Problem("--host", f'"{options.host}" is no address', allowed)]) from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if isinstance(error, PermissionError):
                what, remedy = f"port {options.port} is for root alone", "take one from 1024 on: `rml up --port N`"
            elif error.errno == 99:
                what, remedy = f'"{options.host}" is no address of this machine', "name one of its own: `--host`"
            else:
                who = processes.on_port(options.host, options.port)
                what = f"port {options.port} is taken by {who}"
                remedy = f"end that, or take another port: `rml up --port {_free(options)}`"
            raise Refused([Problem("", what, remedy=remedy)]) from None


def _free(options: Options) -> int:
    for port in range(options.port + 1, min(options.port + 100, 65536)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return 4200


def _check_database(state: State) -> None:
    """A database that SQLite cannot open would have the server die over and over."""
    if os.environ.get(DATABASE) or not state.database.exists():
        return
    try:
        with sqlite3.connect(f"file:{state.database}?mode=ro", uri=True) as database:
            database.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        what = f"Prefect's database cannot be read: {error}"
        remedy = "see who else has it open, and who may read it; nothing in it is lost"
        raise Refused([Problem(str(state.database), what, remedy=remedy)]) from None
    except sqlite3.DatabaseError as error:
        raise Refused([damaged(state, str(error))]) from None


def damaged(state: State, why: str) -> Problem:
    remedy = (
        f"put it aside, and `rml up` makes a new one: mv {state.database} {state.database}.damaged\n"
        "    (schedules, and the pages of former runs, are in it; checkpoints, logs and predictions are not)"
    )
    return Problem(str(state.database), f"Prefect's database is damaged: {why}", remedy=remedy)


def _import_meanwhile() -> None:
    """What the deployments are of is imported while the server starts."""
    import flows.rml  # noqa: F401


def _wait_for_server(state: State, supervisor: Supervisor, options: Options, logged: int) -> None:
    """`logged`: the length of its log when it was started. Raises `RunFailed` where it does not answer."""
    until = time.monotonic() + PATIENCE
    started: set[int] = set()
    while not (api.is_healthy(options.api) and processes.listens(state, options.port)):
        found = supervisor.programs().get(SERVER, {})
        started |= {found["pid"]} if found.get("pid") else set()
        if len(started) > STARTS or found.get("statename") == "FATAL" or time.monotonic() > until:
            raise RunFailed(_why(state, logged))
        time.sleep(0.1)


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _wait_for_workers(state: State, supervisor: Supervisor, options: Options) -> None:
    """Until each has told the server that it is there, and has lived for a while."""
    waiting = {pool for pool, count in zip(WORKERS, (options.gpu_runs, options.cpu_runs), strict=True) if count}
    until = time.monotonic() + PATIENCE
    while True:
        programs = supervisor.programs()
        waiting = {
            pool
            for pool in waiting
            if programs.get(pool, {}).get("statename") != "RUNNING"
            or not _is_online(options, pool, programs[pool]["start"])
        }
        if not waiting:
            return
        if time.monotonic() > until:
            pool = min(waiting)
            log = state.logs / f"{pool}.log"
            last = log_end(log, 1).strip() or "nothing"
            raise RunFailed(f"the worker of the pool {pool} does not start; it says: {last} ({log})")
        time.sleep(0.2)


def _is_online(options: Options, pool: str, since: int) -> bool:
    """Whether the worker has said that it is there `since` it was started, in seconds: for a while the server takes one
    that was killed for online, and one that is only starting does not outlive the server."""
    name = f"{pool} on {socket.gethostname()}"
    found = api.call(options.api, f"/work_pools/{pool}/workers/filter", {})
    return any(
        each["name"] == name
        and each["status"] == "ONLINE"
        and datetime.fromisoformat(each["last_heartbeat_time"]).timestamp() >= since
        for each in found
    )


# What the server's log says, and what that means.
REASONS = (
    ("malformed", "Prefect's database is damaged"),
    ("not a database", "Prefect's database is damaged"),
    ("disk is full", "no space is left on the disk"),
    ("No space left", "no space is left on the disk"),
    ("is already in use", "its port was taken meanwhile"),
    ("Connection refused", "the database cannot be reached"),
    ("password authentication failed", "the database refuses the password"),
    ("Could not locate revision", "its database was made by a newer version of Prefect"),
)


def _why(state: State, logged: int) -> str:
    log = state.logs / f"{SERVER}.log"
    said = log_end(log, 200, logged)
    reason = next((meaning for sign, meaning in REASONS if sign in said), "see the end of its log")
    last = log_end(log, 1, logged).strip()
    return f"the Prefect server does not start: {reason}; it says: {last or 'nothing'} ({log})"


def _said(state: State, options: Options) -> list[str]:
    taken = [
        f"{pool} ({count} at a time)"
        for pool, count in zip(WORKERS, (options.gpu_runs, options.cpu_runs), strict=True)
        if count
    ]
    return [
        f"up: {options.url}",
        f"workers: {', '.join(taken)}",
        f"state: {state.folder}",
    ]


def _profile_lines(path: Path, state: State, options: Options) -> list[str]:
    try:
        active = profile.put(path, state, options)
    except RunFailed as failed:
        settings = " ".join(f"{name}={value}" for name, value in profile.settings(options).items())
        return [f"warning: {failed}", f"for `prefect` to find this server: export {settings}"]
    if active:
        return []
    return [
        "your active Prefect profile names another server; for this one: `prefect profile use rml`, "
        "or `prefect --profile rml ...`"
    ]


__all__ = ["NAMING", "damaged", "gpus", "up"]
