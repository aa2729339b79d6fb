"""The folder in which everything of a service lies: database, logs, process ids, results, and how it was put up."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from rml_core.config.problem import Problem, Refused

# A Unix socket's path has at most 107 bytes on Linux, 103 on macOS.
LONGEST_SOCKET = 100
LEAST_FREE = 256 * 2**20


@dataclass(frozen=True)
class Options:
    """How a service was put up. `gpu_runs`, `cpu_runs`: runs at a time on each pool; 0: this machine takes none."""

    host: str = "127.0.0.1"
    port: int = 4200
    gpu_runs: int = 0
    cpu_runs: int = 2

    @property
    def url(self) -> str:
        """The address of the pages, as this machine reaches them."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.url}/api"


@dataclass(frozen=True)
class State:
    """The folder, and where things lie in it."""

    folder: Path

    @property
    def prefect(self) -> Path:
        """`PREFECT_HOME` of the server, the workers and the runs: database and results."""
        return self.folder / "prefect"

    @property
    def database(self) -> Path:
        return self.prefect / "prefect.db"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def config(self) -> Path:
        return self.folder / "supervisord.conf"

    @property
    def pid(self) -> Path:
        return self.folder / "supervisord.pid"

    @property
    def profile(self) -> Path:
        """What is remembered of the user's Prefect profiles."""
        return self.folder / "profile.json"

    @property
    def socket(self) -> Path:
        """The supervisor's; a folder whose path is too long for one has it among the temporary files."""
        path = self.folder / "supervisord.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET:
            return path
        name = hashlib.blake2b(os.fsencode(self.folder), digest_size=8).hexdigest()
        return Path(tempfile.gettempdir()) / f"rml-{os.getuid()}" / f"{name}.sock"

    def options(self) -> Options | None:
        """How the service was put up the last time; None: never."""
        try:
            found = Options(**json.loads((self.folder / "service.json").read_text()))
            if any(type(getattr(found, each.name)) is not type(each.default) for each in fields(Options)):
                raise TypeError(found)
            return found
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            where = str(self.folder / "service.json")
            remedy = "remove it: `rml up` makes it anew"
            raise Refused([Problem(where, "is not what `rml up` writes", remedy=remedy)]) from None

    def keep(self, options: Options) -> None:
        written(self.folder / "service.json", json.dumps(asdict(options), indent=2) + "\n")

    def make(self) -> None:
        """Make the folders, for this user alone."""
        if re.search(r"\s[;#]|\n", str(self.folder)):
            what = "supervisord reads what stands behind a blank and a ; or # as a comment"
            raise Refused([Problem(str(self.folder), what, remedy=f"name another folder: {NAMING}")])
        try:
            for path in (self.folder, self.prefect, self.logs, self.socket.parent):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self.socket.parent.stat().st_uid != os.getuid():
                raise PermissionError(None, "belongs to another user", str(self.socket.parent))
            statistics = os.statvfs(self.folder)
        except OSError as error:
            what = f"the state folder cannot be made: {error.filename}: {(error.strerror or str(error)).lower()}"
            raise Refused([Problem("", what, remedy=f"name another one: {NAMING}")]) from None
        free = statistics.f_bavail * statistics.f_frsize
        if free < LEAST_FREE:
            what = f"{free // 2**20} MiB are free, and the service's database and logs need {LEAST_FREE // 2**20}"
            remedy = f"free some, or name a folder on another disk: {NAMING}"
            raise Refused([Problem(str(self.folder), what, remedy=remedy)])

    @contextmanager
    def held(self) -> Iterator[None]:
        """One `rml up` or `rml down` of this folder at a time: the second one waits."""
        try:
            lock = (self.folder / "lock").open("w")
        except OSError as error:
            what = f"the state folder cannot be written: {(error.strerror or str(error)).lower()}"
            raise Refused([Problem(str(self.folder), what, remedy=f"it is another user's, or: {NAMING}")]) from None
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


NAMING = "`--state DIR`, or the variable RML_STATE"


def named(given: Path | None = None) -> State:
    """The state folder: as given, else `RML_STATE`, else the user's own."""
    if given is None:
        home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        given = Path(os.environ.get("RML_STATE") or f"{home}/rml")
    # One folder has one name: its processes are known by it.
    return State(Path(os.path.realpath(given.expanduser())))


def chosen(before: Options | None, gpus: int, cores: int, **given: str | int | None) -> Options:
    """What was asked for, else what there was the last time, else what suits the machine: two runs a GPU (one trains,
    the next one prepares its data), and one run for four cores, two at least."""
    options = before or Options(gpu_runs=2 * gpus, cpu_runs=max(2, cores // 4))
    options = replace(options, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    problems = []
    if not 1 <= options.port <= 65535:
        problems.append(Problem("--port", f"{options.port} is no port", "1 to 65535"))
    for name in ("gpu_runs", "cpu_runs"):
        if getattr(options, name) < 0:
            problems.append(Problem(f"--{name.replace('_', '-')}", f"{getattr(options, name)}", "0 or more"))
    if options.gpu_runs == options.cpu_runs == 0:
        problems.append(
            Problem("", "--gpu-runs 0 and --cpu-runs 0: nothing would ever run", remedy="raise one of them")
        )
    if problems:
        raise Refused(problems)
    return options


def written(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, for this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
