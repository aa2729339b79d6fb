"""The log files of a run: plain numbers, a line a batch or an epoch; resuming cuts off what lies behind.

`out.txt` gives `out_train.txt` (`epoch batch time_s loss grad_norm`), `out_test.txt`
(`epoch time_s loss accuracy`) and `out_metrics.jsonl` (an object an epoch with everything measured).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rml_core.config.problem import RunFailed
from rml_core.config.unfinished import another, remove_leftovers

# What a line has as it was when the line was written, and a run's history as it was when the epoch was trained.
MEASURED_AGAIN = ("time_s", "memory_mb")


@dataclass(frozen=True)
class LogFiles:
    """Where a run's logs lie."""

    train: Path
    test: Path
    metrics: Path
    report: Path

    @classmethod
    def beside(cls, outfile: Path) -> LogFiles:
        def named(ending: str) -> Path:
            return outfile.with_name(outfile.stem + ending)

        suffix = outfile.suffix
        return cls(named(f"_train{suffix}"), named(f"_test{suffix}"), named("_metrics.jsonl"), named("_report.png"))


def train_line(epoch: int, batch: int, time_s: float, loss: float, grad_norm: float) -> str:
    """Nine digits: a float32 is read back as it was."""
    return f"{epoch} {batch} {time_s:.6f} {loss:.9g} {grad_norm:.9g}\n"


def test_line(epoch: int, time_s: float, loss: float, accuracy: float) -> str:
    return f"{epoch} {time_s:.6f} {loss:.9g} {accuracy:.9g}\n"


def metrics_line(row: Mapping[str, Any]) -> str:
    return as_json(row)


def as_json(value: Mapping[str, Any], indent: int | None = None) -> str:
    """A line, or indented ones. Numbers that JSON has no word for (nan, inf) become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            return None
        if isinstance(value, Mapping):
            return {key: plain(member) for key, member in value.items()}
        return [plain(member) for member in value] if isinstance(value, list | tuple) else value

    return json.dumps(plain(value), indent=indent) + "\n"


def sync(files: LogFiles) -> None:
    """Let what was written reach the disk, as a checkpoint does that says how far the run is."""
    for path in (files.train, files.test, files.metrics):
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise RunFailed(f"{path}: {error.strerror or error}") from error
            finally:
                os.close(descriptor)


def append(path: Path, lines: Iterable[str]) -> None:
    """Add `lines`, all of them or none.

    Raises:
        RunFailed: they cannot be written (a full disk).
    """
    try:
        with path.open("ab", buffering=0) as file:
            end = file.tell()
            data = "".join(lines).encode()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                with suppress(OSError):
                    file.truncate(end)
                raise
    except OSError as error:
        raise RunFailed(f"{path}: {error.strerror or error}") from error


def put(path: Path, content: bytes, otherwise: str = "") -> None:
    """Write `content` to `path`, which holds what it held before until all of it is there.

    Raises:
        RunFailed: it cannot be written (a full disk); `otherwise` says how things stand then.
    """
    remove_leftovers(path)
    making = another(path)
    try:
        making.write_bytes(content)
        making.replace(path)
    except OSError as error:
        making.unlink(missing_ok=True)
        raise RunFailed(f"{path}: {error.strerror or error}{otherwise}") from error


def are_of(files: LogFiles, history: Iterable[Mapping[str, Any]], epoch: int) -> bool:
    """Whether the logs have a run's own figures of the epochs before `epoch`, as its checkpoint has them in `history`.

    Two runs of one file differ in the times that they measure.
    """
    try:
        lines = files.metrics.read_bytes().splitlines()
        written = {int(row["epoch"]): row for row in map(json.loads, lines[: epoch - 1])}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    for row in history:
        if row["epoch"] < epoch:
            line = written.get(row["epoch"], {})
            own = json.loads(as_json({key: value for key, value in row.items() if not key.endswith(MEASURED_AGAIN)}))
            if any(key not in line or line[key] != value for key, value in own.items()):
                return False
    return True


def start(files: LogFiles, epoch: int, batch: int, evaluates: bool) -> None:
    """Make the logs ready for a run that stands after `batch` of `epoch` (batch 0: at the epoch's end; epoch 0: new).

    What lies behind that position is cut off. A run that evaluates does so again for the epoch where it stands:
    a run may have been killed between the checkpoint and the evaluation.

    Raises:
        RunFailed: they cannot be written.
    """
    behind = (epoch, batch) if batch else (epoch + 1, 0)
    _cut(files.train, lambda line: _position(line) <= behind if batch else _position(line) < behind)
    done = epoch if not evaluates and not batch else epoch - 1
    _cut(files.test, lambda line: _position(line)[0] <= done)
    _cut(files.metrics, lambda line: int(json.loads(line)["epoch"]) <= done)


def _position(line: str) -> tuple[int, int]:
    epoch, batch, *_ = line.split()
    return int(epoch), int(float(batch))


def _cut(path: Path, keep: Callable[[str], bool]) -> None:
    """Cut `path` at its first line that is not to be kept or that a killed run left unfinished."""
    kept = 0
    try:
        path.touch()
        with path.open("r+b") as file:
            for line in file:
                try:
                    whole = line.endswith(b"\n") and keep(line.decode())
                except (ValueError, KeyError):
                    whole = False
                if not whole:
                    break
                kept += len(line)
            file.truncate(kept)
    except OSError as error:
        raise RunFailed(f"{path}: {error.strerror or error}") from error
