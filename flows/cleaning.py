"""`rml clean`: removes what runs have left for the next one, where it is old or too much, and what killed ones left.

It may be called at any time: nothing that a living run uses, or begins to use at that moment, is removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from rml_core.config.problem import Problem, Refused, collect, shown
from rml_core.data import prepared_folders
from rml_core.data.building import sweep
from rml_core.data.prepared_folders import Folder
from tasks.load import cache_folder, prepared_samples

AGES = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
SIZES = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
DAYS = "30d"
CLAIM = "claim"
# What killed processes have left may belong to another machine that sees the same folder: it is idle for so long.
IDLE_S = 3600.0
# Names of what is being written, by the process that writes it (`rml_core.config.unfinished`).
UNFINISHED = re.compile(r"\.(?:model_checkpoint_.+\.pt|output_\d+\.h5|.+\.spool|.+\.[0-9a-f]{12})\.(?P<process>\d+)")
SCRATCH = re.compile(r"rml-(?P<process>\d+)-[a-z0-9_]{8}")


@dataclass(frozen=True)
class Removed:
    """`size`: bytes that it took on disk."""

    what: str
    path: Path
    size: int
    why: str


@dataclass
class Cleaning:
    """What was removed (or would be), what is kept because a run uses it, and what could not be removed."""

    removed: list[Removed] = field(default_factory=list)
    in_use: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    kept: int = 0

    @property
    def freed(self) -> int:
        return sum(each.size for each in self.removed)

    def lines(self, dry_run: bool) -> list[str]:
        """What a person is told."""
        one_by_one = [each for each in self.removed if each.what != CLAIM]
        lines = [f"{each.path}: {each.what}, {said(each.size)}, {each.why}" for each in one_by_one]
        claims = len(self.removed) - len(one_by_one)
        if claims:
            lines.append(f"{tempfile.gettempdir()}: {claims} {CLAIM}{'s' if claims > 1 else ''} of runs that are gone")
        lines += [f"{path}: kept, a run uses it" for path in self.in_use]
        lines += [f"warning: {why}" for why in self.failed]
        verb = "would be removed" if dry_run else "removed"
        count = len(self.removed)
        lines.append(
            f"{count} {'thing' if count == 1 else 'things'} {verb}, {said(self.freed)}; "
            f"{said(self.kept)} of prepared samples {'would stay' if dry_run else 'stay'}"
        )
        return lines


def said(size: int) -> str:
    """`1.5 GB`"""
    unit, bytes_ = max(((unit, each) for unit, each in SIZES.items() if each <= max(size, 1)), key=lambda each: each[1])
    return f"{size / bytes_:.3g} {unit or 'B'}" if bytes_ > 1 else f"{size} B"


def seconds(text: str, where: str = "--older-than") -> float:
    """`30d`, `12h`. Raises `Refused`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text.strip())
    if found is None:
        raise Refused([Problem(where, f"{shown(text)} does not fit", "a number and m, h, d or w, as 30d")])
    return float(found[1]) * AGES[found[2]]


def size(text: str, where: str = "--larger-than") -> int:
    """`20GB`. Raises `Refused`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    units = {unit.casefold(): bytes_ for unit, bytes_ in SIZES.items()}
    if found is None or found[2].casefold() not in units:
        raise Refused([Problem(where, f"{shown(text)} does not fit", "a number and kB, MB, GB or TB, as 20GB")])
    return int(float(found[1]) * units[found[2].casefold()])


def clean_command(folders: Collection[Path], older_than: str, larger_than: str | None, dry_run: bool) -> list[str]:
    """What the command prints. Raises `Refused`."""
    from flows.tracking import is_configured

    age: list[float] = []
    most: list[int] = []
    problems = [Problem("FOLDER", f"{folder} is no folder") for folder in folders if not folder.is_dir()]

    def all_there() -> None:
        if problems:
            raise Refused(problems)

    collect(
        lambda: age.append(seconds(older_than)),
        lambda: most.append(size(larger_than)) if larger_than is not None else None,
        all_there,
    )

    def needed() -> Collection[str]:
        from flows.clean import networks_in_use

        return networks_in_use()

    # A server that is down still knows of runs that will go on.
    asked = needed if is_configured() else None
    done = clean(age[0], most[0] if most else None, below=folders, networks_in_use=asked, dry_run=dry_run)
    return done.lines(dry_run)


def clean(
    older_than: float | None,
    larger_than: int | None = None,
    *,
    below: Collection[Path] = (),
    networks_in_use: Callable[[], Collection[str]] | None = None,
    dry_run: bool = False,
) -> Cleaning:
    """Remove prepared samples (and networks, and cached results) that were not used for `older_than` seconds, then
    those that were not used for longest until the rest takes no more than `larger_than` bytes, and what killed runs
    have left in the cache, among the temporary files, and `below` folders. None: no such limit.

    `networks_in_use`: names of networks that are needed however old they are; None: nobody can tell, and all stay.
    """
    done = Cleaning()
    _prepared(done, older_than, larger_than, dry_run)
    if older_than is not None:
        before = time.time() - older_than
        if networks_in_use is not None:
            _networks(done, before, networks_in_use, dry_run)
        _results(done, before, dry_run)
    _claims(done, dry_run)
    _scratch(done, dry_run)
    for folder in (cache_folder(), *below):
        _unfinished(done, folder, dry_run)
    if not dry_run and prepared_samples().is_dir():
        sweep(prepared_samples())
    return done


def _prepared(done: Cleaning, older_than: float | None, larger_than: int | None, dry_run: bool) -> None:
    now, found = time.time(), prepared_folders.folders(prepared_samples())
    total = sum(folder.size for folder in found)
    for folder in found:
        idle = now - folder.used
        if older_than is not None and idle >= older_than:
            why = f"not used for {_days(idle)}"
        elif larger_than is not None and total > larger_than:
            why = f"all together are more than {said(larger_than)}, and others were used since"
        else:
            continue
        if prepared_folders.is_used(folder):
            done.in_use.append(folder.path)
            continue
        if not dry_run and not _gone(done, folder):
            continue
        total -= folder.size
        done.removed.append(Removed("prepared samples", folder.path, folder.size, why))
    done.kept = total


def _gone(done: Cleaning, folder: Folder) -> bool:
    """Whether it could be removed: a run may have begun to use it just now."""
    try:
        if prepared_folders.remove(folder):
            return True
        done.in_use.append(folder.path)
    except OSError as error:
        done.failed.append(f"{folder.path} cannot be removed: {error.strerror or error}")
    return False


def _networks(done: Cleaning, before: float, in_use: Callable[[], Collection[str]], dry_run: bool) -> None:
    """Networks that runs have by reference: what a deployment names, or a run that is yet to end, stays."""
    old = [path for path in _files(cache_folder() / "networks", "*.json") if path.stat().st_mtime < before]
    try:
        needed = in_use() if old else ()
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        done.failed.append(f"networks stay: the server cannot say which are needed ({text})")
        return
    for path in old:
        if path.name in needed:
            done.in_use.append(path)
        else:
            _unlink(done, "a network", path, "no deployment and no run needs it", dry_run)


def _results(done: Cleaning, before: float, dry_run: bool) -> None:
    """Cached results of load, slice and transform: small handles; without them the phase finds its samples itself."""
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    storage = Path(os.environ.get("PREFECT_LOCAL_STORAGE_PATH") or home / "storage")
    for path in _files(storage, "rml-*"):
        if path.stat().st_mtime < before:
            _unlink(done, "a cached result", path, "old", dry_run)


def _claims(done: Cleaning, dry_run: bool) -> None:
    """Files that stand for places behind URLs, of runs that were killed: nobody holds their lock."""
    for path in _files(Path(tempfile.gettempdir()), f"rml-{os.getuid()}-*.claim"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Under the lock: who opens it meanwhile sees that it is gone, and makes another.
                if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                    _unlink(done, CLAIM, path, "its run is gone", dry_run)
            except BlockingIOError:
                continue
            finally:
                os.close(descriptor)


def _scratch(done: Cleaning, dry_run: bool) -> None:
    """Folders for what goes behind URLs, of processes that are gone."""
    for folder in {Path(tempfile.gettempdir()), cache_folder()}:
        for path in _matching(folder, SCRATCH):
            _left(done, path, int(SCRATCH.fullmatch(path.name)["process"]), dry_run)  # type: ignore[index]


def _unfinished(done: Cleaning, folder: Path, dry_run: bool) -> None:
    """Files that were being written, of processes that are gone."""
    for where, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            found = UNFINISHED.fullmatch(name)
            if found is not None:
                _left(done, Path(where, name), int(found["process"]), dry_run)


def _left(done: Cleaning, path: Path, process: int, dry_run: bool) -> None:
    try:
        os.kill(process, 0)
        return
    except ProcessLookupError:
        pass
    except OSError:
        return
    with suppress(OSError):
        inside = [path, *path.rglob("*")] if path.is_dir() else [path]
        if path.stat().st_uid == os.getuid() and time.time() - max(each.stat().st_mtime for each in inside) > IDLE_S:
            taken = sum(each.stat().st_blocks * 512 for each in inside if each.is_file())
            if not dry_run:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            done.removed.append(Removed("unfinished", path, taken, f"process {process} is gone"))


def _unlink(done: Cleaning, what: str, path: Path, why: str, dry_run: bool) -> None:
    try:
        taken = path.stat().st_blocks * 512
        if not dry_run:
            path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        done.failed.append(f"{path} cannot be removed: {error.strerror or error}")
        return
    done.removed.append(Removed(what, path, taken, why))


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    yield from sorted(path for path in folder.glob(pattern) if path.is_file())


def _matching(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if pattern.fullmatch(path.name))
    except OSError:
        return []


def _days(idle: float) -> str:
    return f"{idle / 86400:.0f} days" if idle >= 2 * 86400 else f"{idle / 3600:.0f} hours"
