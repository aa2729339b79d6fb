"""Who wrote a run file, and what of it is taken at its word.

One's own run file may use every variable of one's environment. One that came from somebody else, through a deployment,
uses the variables that are meant for it, `RML_...`, and no others: `$AWS_SECRET_ACCESS_KEY` in a path would carry a
secret to wherever that path is said. Where it may read and write is `roots`' business.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from rml_core.config.problem import Problem, redacted, shown

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

PREFIX = "RML_"
# Prefect's workers of every kind set it for the process of a run that came through a deployment.
OF_A_WORKER = "PREFECT__FLOW_RUN_ID"
# As a shell has them.
VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)


class Origin(Enum):
    """OWN: written by who runs it. SENT: about to be given to a worker, its owner's variables put in already.
    RECEIVED: it came to this worker."""

    OWN = "own"
    SENT = "sent"
    RECEIVED = "received"


def here() -> Origin:
    """Whose run files this process reads: those of a worker's run are somebody else's."""
    return Origin.RECEIVED if os.environ.get(OF_A_WORKER) else Origin.OWN


def expanded(path: str) -> str:
    """`path` with the variables that expand in this process, and `~`, put in, once: what they hold stays as it is."""
    if here() is Origin.OWN:
        return with_variables(os.path.expanduser(path), lambda name: True)
    return with_variables(path, is_of_worker)


def expanded_to_send(path: str) -> str:
    """`path` with `~` and the variables of its owner put in; those of the worker stay."""
    return with_variables(os.path.expanduser(path), lambda name: not is_of_worker(name))


def is_of_worker(name: str) -> bool:
    return name.startswith(PREFIX)


def variables(path: str) -> list[str]:
    """The names of those that stand in `path`."""
    return [first or second for first, second in VARIABLE.findall(path)]


def needs_worker(path: str) -> bool:
    """Whether `path` is where a variable of the worker says."""
    return any(map(is_of_worker, variables(path)))


def with_variables(path: str, taken: Callable[[str], bool]) -> str:
    """`path` with the variables that are `taken`, and set in this process, put in."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return os.environ.get(name, match[0]) if taken(name) else match[0]

    return VARIABLE.sub(value, path)


@dataclass(frozen=True)
class Reading:
    """What is known while a run file is read. `base`: the folder that its relative paths are against; None: not yet
    known, as when a model is made by itself. `is_given`: somebody has said which folder that is."""

    base: AnyPath | str | None = None
    origin: Origin = Origin.OWN
    is_given: bool = True

    def problem(self, path: str, where: str = "") -> Problem | None:
        """Why the text `path` of a run file is not taken; None: it is."""
        if self.origin is Origin.OWN:
            return None
        found = self._of_variables(path, where) or with_secret(path, where)
        return found or (None if self.is_given else without_base(path, where, self.origin))

    def _of_variables(self, path: str, where: str) -> Problem | None:
        allowed = f"variables whose names begin with {PREFIX}, set where the worker runs"
        if path.startswith("~"):
            what = f"{shown(path)}: ~ would be the home of whoever runs the worker"
            return Problem(where, what, "an absolute path, or one against the run file's folder", "write it out")
        names = variables(path)
        strange = [name for name in names if not is_of_worker(name)]
        if strange:
            what = f"{shown(path)}: ${strange[0]} does not expand on a worker"
            remedy = "write it out; where the name of a file has a $, rename it, or give it a link without one"
            return Problem(where, what, allowed, remedy)
        missing = [name for name in names if name not in os.environ]
        if missing and self.origin is Origin.RECEIVED:
            remedy = "set it where the worker is started, or write the path out"
            return Problem(where, f"{shown(path)}: ${missing[0]} is not set on this worker", allowed, remedy)
        return None


def with_secret(path: str, where: str) -> Problem | None:
    """Why `path` cannot be a parameter of a run; None: no secret is in it."""
    if redacted(path) == path:
        return None
    what = f"{shown(redacted(path))}: the parameters of a run are seen by everybody who sees the run, this secret too"
    remedy = "give it to the worker, by fsspec's configuration or a Prefect block, and leave it out here"
    return Problem(where, what, "a URL without a password, a token or a key", f"{remedy}: see docs/security.md")


def without_base(path: str, where: str, origin: Origin | None = None) -> Problem | None:
    """Why `path` cannot be taken where no base is given: on a worker a relative one would be against a folder that goes
    with the run. None: it can."""
    if (origin or here()) is not Origin.RECEIVED:
        return None
    place = expanded(path).removeprefix("file://").removeprefix("local://")
    if "://" in place or os.path.isabs(place):
        return None
    what = f"{shown(path)} is relative, and nothing says to which folder"
    return Problem(where, what, remedy="give absolute paths, or base: the folder they are against")


OWN = Reading()


def reading_of(context: Any) -> Reading:
    """What pydantic's validators have been told."""
    return context if isinstance(context, Reading) else OWN


def without_secrets(value: Any) -> Any:
    """A copy of a run file's JSON that can be kept: what is secret in the URLs of its strings is left out."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: without_secrets(member) for key, member in value.items()}
    return [without_secrets(member) for member in value] if isinstance(value, list | tuple) else value


def problem_without_secrets(problem: Problem) -> Problem:
    return replace(problem, **{key: redacted(text) for key, text in vars(problem).items()})
