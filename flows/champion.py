"""A champion's folder: the best checkpoint under one name, the rounds that challenged it, and their history.

    champion.pt         the champion's checkpoint, for whoever reads it: always a whole one, the old or the new
    history.jsonl       a line a round that came to its end
    rounds/0001/        what a round has left: logs, checkpoints, report.md, report.png, round.json, data.json

A round's decision is written to its `round.json` first; only then the champion moves and the history grows (`settle`),
which can be done again, and is, by whoever comes next after a process was killed in between.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from rml_core.config import roots
from rml_core.config.problem import RunFailed, shown
from rml_core.config.unfinished import another, remove_leftovers
from rml_core.engine.log import as_json

CHAMPION = "champion.pt"
HISTORY = "history.jsonl"
ROUND = "round.json"
DATA = "data.json"
# The event that tells of a new champion.
PROMOTED = "rml.champion.promoted"

Row = dict[str, Any]


@dataclass(frozen=True)
class Round:
    """`number` counts from 1, `run_id` is that of the run which makes it, `run_file` the digest of what is learned."""

    number: int
    run_id: str
    path: Path
    run_file: str = ""

    @property
    def decision(self) -> Row | None:
        """The row of the history that the round has come to; None: it has not yet."""
        return (_read(self.path / ROUND) or {}).get("decision")

    def decide(self, row: Row) -> None:
        """Raises `RunFailed` where it cannot be written; so do the other methods."""
        put(self.path / ROUND, as_json({"run_id": self.run_id, "run_file": self.run_file, "decision": row}))


@dataclass(frozen=True)
class Champions:
    """The champion's folder, absolute. Whoever changes it holds its lock (`rml_core.engine.claim`); readers need
    none."""

    folder: Path

    @property
    def champion(self) -> Path | None:
        """The champion's checkpoint, if there is one."""
        path = self.folder / CHAMPION
        return path if path.exists() else None

    def history(self) -> list[Row]:
        """The rounds that came to their end, in this order."""
        try:
            with roots.opened(str(self.folder / HISTORY)) as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunFailed(f"{self.folder / HISTORY}: {error.strerror or error}") from error
        try:
            return [json.loads(line.decode()) for line in lines]
        except ValueError as error:
            raise RunFailed(f"{self.folder / HISTORY} is damaged: {error}; mend it, or move the folder away") from None

    def round_path(self, number: int) -> Path:
        return self.folder / "rounds" / f"{number:04d}"

    def rounds(self) -> list[Round]:
        """Those whose folders are there, in their order."""
        found = []
        for number in self._numbers():
            path = self.round_path(number)
            said = _read(path / ROUND)
            if said is not None:
                found.append(Round(number, str(said.get("run_id", "")), path, str(said.get("run_file", ""))))
        return found

    def round_of(self, run_id: str) -> Round | None:
        """The round that the run has begun in an earlier attempt."""
        return next((each for each in reversed(self.rounds()) if each.run_id == run_id), None)

    def begin(self, run_id: str, run_file: str = "") -> Round:
        """A new round. Raises `RunFailed`."""
        numbers = [int(row["round"]) for row in self.history()] + [each.number for each in self.rounds()]
        number = max(numbers, default=0) + 1
        made = Round(number, run_id, self.round_path(number), run_file)
        # What was killed before it said which run it is of is nobody's.
        shutil.rmtree(made.path, ignore_errors=True)
        put(made.path / ROUND, json.dumps({"run_id": run_id, "run_file": run_file}))
        return made

    def settle(self, promoted: Callable[[Row], None] = lambda row: None) -> list[Row]:
        """Do what rounds have decided and was not done yet; gives their rows. `promoted`: told of each new champion,
        once at least.

        A challenger whose checkpoint is not there becomes no champion: its row says so, and is `lost`."""
        done = {int(row["round"]) for row in self.history()}
        rows = []
        for each in self.rounds():
            row = each.decision
            if row is None or each.number in done:
                continue
            if row["promoted"] and (lack := self._lack(each, row["challenger"]["checkpoint"])):
                row = {**row, "promoted": False, "lost": True, "why": f"{row['why']}; but {lack}"}
            if row["promoted"]:
                point_to(self.folder / row["challenger"]["checkpoint"], self.folder / CHAMPION)
                promoted(row)
            put(self.folder / HISTORY, "".join(map(as_json, [*self.history(), row])))
            rows.append(row)
        return rows

    def prune(self, keep: int, now: Round | None) -> list[int]:
        """Remove the folders of rounds: the newest `keep` stay, and so do the champion's, the last that came to its
        end, and the one of `now`. Gives the numbers of those that went."""
        history = self.history()
        stay = {each.number for each in self.rounds()[-keep:]}
        stay |= {now.number} if now is not None else set()
        stay |= {int(row["round"]) for row in history[-1:]}
        stay |= {int(row["round"]) for row in [row for row in history if row["promoted"]][-1:]}
        gone = [number for number in self._numbers() if number not in stay]
        for number in gone:
            # Without it the rest of the folder is nobody's.
            with suppress(OSError):
                (self.round_path(number) / ROUND).unlink()
            shutil.rmtree(self.round_path(number), ignore_errors=True)
        return gone

    def _lack(self, of: Round, checkpoint: Any) -> str:
        """Why what a decision names cannot be the champion: others may have written it. Raises `RunFailed`."""
        own = PurePath("rounds", f"{of.number:04d}", "checkpoints")
        if not isinstance(checkpoint, str) or PurePath(checkpoint).parent != own:
            return f"{shown(checkpoint)} is no checkpoint of the round"
        path = self.folder / checkpoint
        try:
            path.stat()
        except FileNotFoundError:
            return f"its checkpoint {checkpoint} is gone"
        except OSError as error:
            raise RunFailed(f"{path}: {error.strerror or error}; the champion is who it was") from error
        return "" if path.is_file() else f"its checkpoint {checkpoint} is no file"

    def _numbers(self) -> list[int]:
        """Raises `RunFailed` where folders of rounds, which are removed with all that is in them, are elsewhere."""
        folder = self.folder / "rounds"
        try:
            names = sorted((name for name in os.listdir(folder) if name.isdecimal()), key=int)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RunFailed(f"{folder}: {error.strerror or error}") from error
        for path in (folder, *(folder / name for name in names)):
            if path.is_symlink():
                raise RunFailed(
                    f"{path} is a link, and rounds are removed with all that is in them: put a folder there"
                )
        return [int(name) for name in names]


def point_to(checkpoint: Path, champion: Path) -> None:
    """Let `champion` be `checkpoint`, at once: a second name for the file, or a copy where there are no such names.

    Raises:
        RunFailed: it cannot be written; the champion is then who it was.
    """
    try:
        roots.check(str(checkpoint))
        if champion.exists() and os.path.samefile(checkpoint, champion):
            return
        remove_leftovers(champion)
        making = another(champion)
        making.unlink(missing_ok=True)
        try:
            try:
                os.link(checkpoint, making)
            except OSError:
                shutil.copyfile(checkpoint, making)
                _sync(making)
            os.replace(making, champion)
        finally:
            making.unlink(missing_ok=True)
        _sync(champion.parent)
    except OSError as error:
        raise RunFailed(f"{champion}: {error.strerror or error}; the champion is who it was") from error


def put(path: Path, text: str | bytes) -> None:
    """Write a whole file: it holds what it held before until the new content is on the disk. Raises `RunFailed`."""
    making = another(path)
    try:
        roots.check(str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        try:
            making.write_bytes(text.encode() if isinstance(text, str) else text)
            _sync(making)
            os.replace(making, path)
        finally:
            making.unlink(missing_ok=True)
        _sync(path.parent)
    except OSError as error:
        raise RunFailed(f"{path}: {error.strerror or error}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        with roots.opened(str(path)) as file:
            said = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None
