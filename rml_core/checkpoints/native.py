"""A run's own checkpoints: written so that a name never stands for half a file, and found again.

A checkpoint is a mapping of plain values and tensors with at least `run_id`, `started` (seconds since 1970: when
the run began), `epoch`, `batch` (0: the epoch is complete) and `network` (a `state_dict`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import torch

from rml_core.checkpoints.content import damaged, is_whole
from rml_core.checkpoints.torch_files import header, is_checkpoint, load
from rml_core.config import remote
from rml_core.config.problem import Problem, Refused, RunFailed
from rml_core.config.unfinished import another, remove_leftovers

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

EPOCH = re.compile(r"model_checkpoint_([1-9][0-9]*|0)\.pt")
# Which run writes to a folder, said before it has anything to save.
LATEST = ".latest_run.json"


def epoch_path(folder: AnyPath, epoch: int) -> AnyPath:
    return folder / f"model_checkpoint_{epoch}.pt"


def interrupted_path(folder: AnyPath) -> AnyPath:
    return folder / "model_checkpoint_interrupted.pt"


def best_path(folder: AnyPath) -> AnyPath:
    return folder / "model_checkpoint_best.pt"


def write(state: Mapping[str, object], path: AnyPath) -> None:
    """Save `state` under `path`, which stands for the earlier file until the new one lies whole on the disk.

    Raises:
        RunFailed: the disk is full, or the file cannot be written for another reason; nothing is left of it.
        TypeError: `state` holds an object that `read` would refuse.
    """
    if not isinstance(path, Path):
        try:
            with remote.written(path) as local:
                write(state, local)
        except OSError as error:
            raise _not_written(path, error) from error
        return
    remove_leftovers(path)
    making = another(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with making.open("wb") as file:
                _save(state, file)
                file.flush()
                os.fsync(file.fileno())
            unreadable = torch.serialization.get_unsafe_globals_in_checkpoint(making)
            if unreadable:
                raise TypeError(f"a checkpoint holds plain values and tensors, not {', '.join(unreadable)}")
            os.replace(making, path)
        except BaseException:
            making.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: AnyPath, error: OSError) -> RunFailed:
    return RunFailed(f"{path}: {error.strerror or error}; the earlier checkpoints are whole")


def _save(state: Mapping[str, object], file: BinaryIO) -> None:
    writer = _Writer(file)
    try:
        torch.save(dict(state), writer)  # type: ignore[arg-type]
    except RuntimeError:
        # torch's archive writer fails once more while it is closed, and that is what is raised.
        if writer.failure is not None:
            raise writer.failure from None
        raise


class _Writer:
    """Hands on to `file`, and remembers why it could not."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        self.file.flush()


def read(path: AnyPath, where: str) -> dict[str, Any]:
    """A whole checkpoint, on the CPU. Nothing in it is executed.

    Raises:
        Refused: there is no such file; it is cut short, damaged, or no run's checkpoint; it would execute code.
    """
    if not isinstance(path, Path):
        try:
            with remote.fetched(path) as local:
                return read(local, where)
        except OSError as error:
            raise Refused([Problem(where, f"{path}: {error.strerror or error}")]) from None
    saved = load(path, where, mmap=False)
    if not is_checkpoint(saved):
        remedy = 'weights alone go to "load"'
        raise Refused([Problem(where, f"{path} is not a checkpoint of a run", remedy=remedy)])
    if not is_whole(path):
        raise damaged(path, where)
    return dict(saved)


def begin(folder: AnyPath, run_id: str, started: float) -> None:
    """Note that a new run writes to `folder`: were it stopped before its first checkpoint, an older run's would
    otherwise be taken for its own.

    Raises:
        RunFailed: the folder cannot be written.
    """
    path, text = folder / LATEST, json.dumps({"run_id": run_id, "started": started}) + "\n"
    try:
        if not isinstance(path, Path):
            with remote.written(path) as local:
                local.write_text(text)
            return
        remove_leftovers(path)
        making = another(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            making.write_text(text)
            os.replace(making, path)
        except OSError:
            making.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _not_written(path, error) from error


def _begun(folder: AnyPath) -> list[tuple[float, str]]:
    """(started, run_id) of the run that began last, where that was noted."""
    try:
        noted = json.loads(remote.read_bytes(folder / LATEST))
        return [(float(noted["started"]), str(noted["run_id"]))]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def newest(folder: AnyPath, of: str | None = None) -> tuple[AnyPath | None, list[str]]:
    """Where the latest run in `folder` stands, or the run `of` that id: the furthest of its checkpoints, the
    interrupted one where it is as far; None where there is none. The lines say what was passed over: files that could
    not be read, and an older run where the latest one was stopped before it saved anything."""
    found, said = [], []
    try:
        paths = [*_epoch_paths(folder), *([interrupted_path(folder)] if has_interrupted(folder) else [])]
    except OSError as error:
        raise RunFailed(f"{folder}: {error.strerror or error}") from error
    for path in paths:
        try:
            found.append((_stamp(path), path))
        except Refused as refused:
            said += [f"passed over: {problem.what}" for problem in refused.problems]
    if of is not None:
        own = [entry for entry in found if of in (entry[0].run_id, entry[0].flow_run)]
        if found and not own:
            said.append(f"passed over: other runs' checkpoints in {folder}; this run has left none")
    elif found:
        latest = max([*((stamp.started, stamp.run_id) for stamp, _ in found), *_begun(folder)])
        own = [entry for entry in found if (entry[0].started, entry[0].run_id) == latest]
        if not own:
            said.append(f"passed over: an older run's checkpoints in {folder}; the latest run has left none")
    else:
        return None, said
    interrupted = interrupted_path(folder)
    for _, path in sorted(own, key=lambda entry: (entry[0].position, entry[1] == interrupted), reverse=True):
        if is_whole(path):
            return path, said
        said.append(f"passed over: {path} is damaged")
    return None, said


def writes_last(folder: AnyPath) -> str | None:
    """The id of the run that began last in `folder`, where that was noted."""
    return next((run_id for _, run_id in _begun(folder)), None)


def left(folder: AnyPath) -> list[AnyPath]:
    """What the run that wrote to `folder` last has left there: complete epochs in their order, the best, the
    interrupted one. Raises `OSError`."""
    names = remote.names(folder)
    others = [path for path in (best_path(folder), interrupted_path(folder)) if path.name in names]
    paths, runs = [*_epoch_paths(folder), *others], {}
    for path in paths:
        try:
            runs[path] = _stamp(path).run_id
        except Refused:
            continue
    latest = max(runs, key=remote.changed, default=None)
    return [path for path in paths if latest is not None and runs.get(path) == runs[latest]]


def has_interrupted(folder: AnyPath) -> bool:
    """Raises `RunFailed` where that cannot be seen."""
    try:
        return interrupted_path(folder).name in remote.names(folder)
    except OSError as error:
        raise RunFailed(f"{folder}: {error.strerror or error}") from error


def remove_interrupted(folder: AnyPath) -> None:
    """Raises `RunFailed` where that cannot be."""
    try:
        remote.remove(interrupted_path(folder))
    except OSError as error:
        raise RunFailed(f"{interrupted_path(folder)}: {error.strerror or error}") from error


def prune(folder: AnyPath, run_id: str, epoch: int, keep: int) -> None:
    """Remove the oldest of the run's epochs beyond the newest `keep` up to `epoch`; files of other runs stay, and so
    do later epochs: they were passed over as damaged, and do not count. Raises `RunFailed` where that cannot be."""
    own = []
    try:
        for path in _epoch_paths(folder):
            try:
                stamp = _stamp(path)
                if stamp.run_id == run_id and stamp.epoch <= epoch:
                    own.append(path)
            except Refused:
                continue
        for path in own[:-keep]:
            remote.remove(path)
    except OSError as error:
        raise RunFailed(f"{folder}: {error.strerror or error}; older checkpoints stay") from error


class _Stamp(NamedTuple):
    run_id: str
    started: float
    epoch: int
    batch: int
    flow_run: str | None

    @property
    def position(self) -> tuple[int, int]:
        """Complete epochs, and batches of the next one."""
        return (self.epoch - 1, self.batch) if self.batch else (self.epoch, 0)


def _stamp(path: AnyPath) -> _Stamp:
    try:
        if isinstance(path, Path):
            status = path.stat()
            return _stamp_of(path, status.st_ino, status.st_mtime_ns, status.st_size)
        return _stamp_of(path, *remote.identity(path))
    except OSError as error:
        raise Refused([Problem("", f"{path}: {error.strerror or error}")]) from None


@lru_cache(maxsize=4096)
def _stamp_of(path: AnyPath, *identity: int | str) -> _Stamp:
    saved = header(path, "")
    if saved is None:
        raise Refused([Problem("", f"{path} is not a checkpoint of a run")])
    return _Stamp(saved["run_id"], saved["started"], saved["epoch"], saved["batch"], saved.get("flow_run"))


def _epoch_paths(folder: AnyPath) -> list[AnyPath]:
    """The files of complete epochs, in the epochs' order. Raises `OSError`."""
    names = [EPOCH.fullmatch(name) for name in remote.names(folder)]
    return [epoch_path(folder, epoch) for epoch in sorted(int(name[1]) for name in names if name)]
