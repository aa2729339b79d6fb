"""What the files of a run's data hold, so that the next run can tell whether something is new.

A file is the same where its size and its time of change are those that were noted; where one of them differs, its
content decides: a file that was touched, or copied anew, is not new. What changed in the last seconds before it was
noted may change again within the same tick of the clock, and is always read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rml_core.config import remote
from rml_core.config.paths import is_url
from rml_core.config.problem import RunFailed

if TYPE_CHECKING:
    from rml_core.data.files import Form
    from rml_core.data.survey import Survey

# A file system's clock may stand still for so long.
TICK_NS = 2_000_000_000
PIECE = 1 << 20

# Of each file: its state (None: not to be trusted), and the digest of its content.
Noted = dict[str, tuple[Any, str]]


@dataclass(frozen=True)
class Holdings:
    """The files of each side of the data: `training inputs`, `test targets`, ..."""

    sides: Mapping[str, Noted]

    def as_json(self) -> str:
        return json.dumps({"sides": self.sides}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Holdings:
        """Raises `ValueError` where it is none."""
        try:
            sides = json.loads(text)["sides"]
            return cls(
                {side: {file: (each[0], each[1]) for file, each in noted.items()} for side, noted in sides.items()}
            )
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError("not what was noted of data") from error

    def digest(self) -> str:
        """Of all that they hold, and of the files' names."""
        return _digest_of(
            f"{side}\0{file}\0{digest}\n"
            for side, noted in sorted(self.sides.items())
            for file, (_, digest) in sorted(noted.items())
        )

    def count(self, role: str) -> int:
        """How many files `training` or `test` has."""
        return sum(len(noted) for noted in self.of(role).sides.values())

    def of(self, role: str) -> Holdings:
        """What `training` or `test` has of them."""
        return Holdings({side: noted for side, noted in self.sides.items() if side.startswith(role)})


@dataclass(frozen=True)
class Changes:
    """Files that are there now and were not, whose content is another, and that are there no more."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.gone)

    def __str__(self) -> str:
        """`12 new, 1 changed`"""
        said = [f"{len(files)} {what}" for what, files in vars(self).items() if files]
        return ", ".join(said) if said else "unchanged"


def holdings(surveys: Iterable[Survey | None], before: Holdings | None) -> Holdings:
    """What the files of `surveys` hold now; those that are as they were `before` are not read.

    Raises:
        RunFailed: a file cannot be read.
    """
    sides: dict[str, Noted] = {}
    for survey in surveys:
        if survey is None:
            continue
        each = {"inputs": (survey.input_form, survey.inputs), "targets": (survey.target_form, survey.targets)}
        for side, (form, items) in each.items():
            if form is not None and items:
                name = f"{survey.role} {side}"
                known = before.sides.get(name, {}) if before is not None else {}
                sides[name] = _noted(form, dict.fromkeys(item.file for item in items), known)
    return Holdings(sides)


def _noted(form: Form, files: Iterable[str], known: Mapping[str, tuple[Any, str]]) -> Noted:
    reader, until = form.reader, time.time_ns() - TICK_NS
    noted: Noted = {}
    unread: dict[str, Any] = {}
    for file in files:
        try:
            state = _state(reader.identity(file), file)
        except OSError as error:
            raise RunFailed(f"{file}: cannot be read: {error.strerror or error}") from None
        old = known.get(file)
        if old is not None and old[0] is not None and old[0] == state:
            noted[file] = old
        else:
            unread[file] = state
            # Its place in the order.
            noted[file] = (None, "")
    if unread:
        with ThreadPoolExecutor(max_workers=min(8, 2 * (os.cpu_count() or 1))) as pool:
            for (file, state), digest in zip(unread.items(), pool.map(content_digest, unread), strict=True):
                noted[file] = (None if _is_fresh(state, until) else state, digest)
    return noted


def _state(identity: Any, file: str) -> Any:
    """As JSON gives it back, without the file's own name."""
    if isinstance(identity, tuple | list):
        return [_state(each, file) for each in (identity[1:] if identity[:1] == (file,) else identity)]
    return identity


def _is_fresh(state: Any, until: int) -> bool:
    changed = state[-1] if isinstance(state, list) and state else None
    return isinstance(changed, int) and changed > until


def content_digest(file: str) -> str:
    """Of a file, or of all files below a folder and their names. Raises `RunFailed`."""
    try:
        if remote.kind(file) == "folder":
            return _digest_of(f"{name}\0{content_digest(path)}\n" for name, path in sorted(_inside(file)))
        digest = hashlib.blake2b(digest_size=16)
        with remote.opened(file) as content:
            while piece := content.read(PIECE):
                digest.update(piece)
        return digest.hexdigest()
    except OSError as error:
        raise RunFailed(f"{file}: cannot be read: {error.strerror or error}") from None


def _inside(folder: str) -> Iterator[tuple[str, str]]:
    """(name below the folder, path) of each file below it."""
    if is_url(folder):
        yield from ((name, remote.below(folder, name)) for name in remote.find(folder))
        return
    for at, _, names in os.walk(folder):
        for name in names:
            yield os.path.relpath(os.path.join(at, name), folder), os.path.join(at, name)


def _digest_of(lines: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()


def changes(before: Holdings, now: Holdings) -> dict[str, Changes]:
    """What is new on each side since `before`."""
    found = {}
    for side in dict.fromkeys([*before.sides, *now.sides]):
        old, new = before.sides.get(side, {}), now.sides.get(side, {})
        found[side] = Changes(
            tuple(file for file in new if file not in old),
            tuple(file for file in new if file in old and new[file][1] != old[file][1]),
            tuple(file for file in old if file not in new),
        )
    return found
