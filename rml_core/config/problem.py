"""A problem the user can mend: where, what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rml_core.config.foreign import meant

# What a URL says between `//` and the last `@` of its host, and behind the keys with which servers ask who is there. A
# variable in its place is no secret. Within a text a `"` ends the URL, unless JSON has written it so: `\"`.
_PASSWORD = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@\"]*):(?!\$\{?\w+\}?@)(?:\\\"|[^\s/\"])+@")
_NAME_ALONE = re.compile(r"(\bhttps?://)(?!\$\{?\w+\}?@)[^\s/:@\"]+@", re.IGNORECASE)
# Of a URL that is by itself nothing ends but its host.
_PASSWORD_ALONE = re.compile(r"\A([A-Za-z][A-Za-z0-9+.-]*://[^\s/?#:@]*):(?!\$\{?\w+\}?@)[^\s/?#]+@")
_QUERY = re.compile(
    r"([?&][\w.-]*(?:token|signature|secret|passwor[dt]|passwd|pwd|key|credential|jwt)[\w.-]*=|[?&](?:sig|auth)=)"
    r"(?!\$\{?\w+\}?(?:[&#\s\"']|$))[^&#\s\"']+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """`text` without the passwords, tokens and keys in its URLs."""
    if "://" not in text:
        return text
    text = _PASSWORD_ALONE.sub(r"\1:***@", text)
    text = _NAME_ALONE.sub(r"\1***@", _PASSWORD.sub(r"\1:***@", text))
    return _QUERY.sub(r"\1***", text)


@dataclass(frozen=True)
class Problem:
    """One thing to mend before a run can start.

    `where` is a JSON path (`neural_network.data.slicers[1].sizes`) or a file, `what` says what was given and
    what is wrong with it, `allowed` what may stand there, `remedy` what to do.
    """

    where: str
    what: str
    allowed: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.allowed:
            lines.append(f"    allowed: {self.allowed}")
        if self.remedy:
            lines.append(f"    {self.remedy}")
        return redacted("\n".join(lines))


class Refused(Exception):
    """Refused before any work: carries every problem found, not only the first."""

    def __init__(self, problems: Iterable[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(_told(self.problems)))

    def __reduce__(self) -> tuple[type[Refused], tuple[tuple[Problem, ...]]]:
        return Refused, (self.problems,)


# What is allowed in so many characters can be read again where another problem says it.
LONG = 200


def _told(problems: Iterable[Problem]) -> Iterable[str]:
    """Each problem's text. A long list of what is allowed is printed once: a layer that is not there may stand in a
    network fifty times."""
    told = set()
    for problem in problems:
        if len(problem.allowed) > LONG and problem.allowed in told:
            problem = replace(problem, allowed="as above")
        told.add(problem.allowed)
        yield str(problem)


class RunFailed(Exception):
    """The run started and cannot go on: one line that says why, for the user's eyes."""

    def __init__(self, *said: object) -> None:
        super().__init__(*(redacted(each) if isinstance(each, str) else each for each in said))


def collect(*checks: Any) -> None:
    """Call every check (functions without arguments) and raise all their problems as one `Refused`."""
    problems: list[Problem] = []
    for check in checks:
        try:
            check()
        except Refused as refused:
            problems.extend(refused.problems)
    if problems:
        raise Refused(problems)


def shown(value: object, limit: int = 80) -> str:
    """`value` as the user wrote it in JSON, cut to `limit` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def nearest(given: object, names: Sequence[str]) -> str:
    """`did you mean "Adam"?` where a name is what other programs call it, or near enough to what was given, else
    nothing."""
    if foreign := meant(given, names):
        return f"did you mean {' or '.join(shown(name) for name in foreign)}?"
    folded = {name.casefold(): name for name in names}
    matches = difflib.get_close_matches(str(given).casefold(), list(folded), n=1, cutoff=0.6)
    return f'did you mean "{folded[matches[0]]}"?' if matches else ""


def listed(names: Iterable[str]) -> str:
    return ", ".join(names)
