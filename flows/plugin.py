"""Prefect's plugin hook: `prefect deployment run rml/train --params FILE` takes a run file.

Prefect calls `setup_environment` while it is imported, in every process where plugins are on (`rml up` turns them on;
`PREFECT_PLUGINS_ENABLED=true` does too): before its command line is read. So next to nothing is imported here, and any
other command, or another deployment, is left as it is.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from prefect.plugins import register_hook

if TYPE_CHECKING:
    from collections.abc import Collection

    from prefect.plugins import HookContext

DEPLOYMENT = re.compile(r"rml/(train|evaluate|retrain(?:-.+)?)")
# Options that take no value of their own; every other one takes the next word.
FLAGS = ("--watch", "--no-watch", "--help", "-h", "--version")


@dataclass(frozen=True)
class Asked:
    """What `prefect deployment run` is asked: `given` is the text of `--params`, at `words[index]` of the command line,
    after `--params=` where it is one word with it."""

    deployment: str
    given: str
    index: int
    profile: str | None
    overrides: tuple[Override, ...]

    def with_parameters(self, words: list[str], text: str, taken: Collection[str] = ()) -> list[str]:
        """The command line with the JSON `text`, and without those overrides that it has taken in: Prefect would put
        them in again as they were typed."""
        joined = f"--params={text}" if words[self.index].startswith("--params=") else text
        left = {place for each in self.overrides if each.key in taken for place in each.places}
        return [joined if at == self.index else word for at, word in enumerate(words) if at not in left]


class Override(NamedTuple):
    """`KEY=VALUE` of `--param`, and the places of its words."""

    text: str
    places: tuple[int, ...]

    @property
    def key(self) -> str:
        return self.text.partition("=")[0]


def asked(words: list[str]) -> Asked | None:
    """What the words behind `prefect` ask; None: nothing that is ours, or what Prefect itself will refuse."""
    start, profile = _command(words)
    if words[start : start + 2] != ["deployment", "run"]:
        return None
    names: list[str] = []
    params: list[tuple[int, str]] = []
    overrides: list[Override] = []
    index, plain = start + 2, False
    while index < len(words):
        word = words[index]
        name, equals, value = word.partition("=")
        if plain or not word.startswith("-") or word == "-":
            names.append(word)
        elif word == "--":
            plain = True
        elif word.startswith("-p") and word != "-p":
            overrides.append(Override(word[2:].removeprefix("="), (index,)))
        elif equals or word in FLAGS or word.startswith(("--no-", "--empty-")) or _is_short(word):
            _take(name, value, (index,), names, params, overrides)
        elif index + 1 < len(words):
            index += 1
            _take(name, words[index], (index - 1, index), names, params, overrides)
        index += 1
    if len(names) != 1 or len(params) != 1 or (found := DEPLOYMENT.fullmatch(names[0])) is None:
        return None
    place, given = params[0]
    return Asked(found[1], given, place, profile, tuple(overrides))


def _command(words: list[str]) -> tuple[int, str | None]:
    """Where the command begins, behind the options of `prefect` itself; and the profile they name."""
    index, profile = 0, None
    while index < len(words) and words[index].startswith("-"):
        name, equals, value = words[index].partition("=")
        if name in ("--profile", "-p"):
            if not equals:
                index += 1
                value = words[index] if index < len(words) else ""
            profile = value
        index += 1
    return index, profile


def _is_short(word: str) -> bool:
    return not word.startswith("--") and word != "-p"


def _take(
    name: str,
    value: str,
    places: tuple[int, ...],
    names: list[str],
    params: list[tuple[int, str]],
    overrides: list[Override],
) -> None:
    if name == "--params":
        params.append((places[-1], value))
    elif name in ("--param", "-p"):
        overrides.append(Override(value, places))
    elif name == "--name":
        names.append(value)


def _is_prefect() -> bool:
    """This process is Prefect's command (`python -m prefect` has no name yet while Prefect is imported)."""
    if sys.argv[0] == "-m":
        return sys.orig_argv[-len(sys.argv) :][:1] == ["prefect"]
    program = Path(sys.argv[0])
    return program.stem == "prefect" or program.parts[-2:] == ("prefect", "__main__.py")


@register_hook
def setup_environment(*, ctx: HookContext) -> None:
    """Put the parameters that a run file makes in the place of its name, or end with every problem of it."""
    if len(sys.argv) < 4 or "run" not in sys.argv or not _is_prefect():
        return
    request = asked(sys.argv[1:])
    if request is None:
        return
    from flows.submission import parameters_for_prefect

    overrides = [each.text for each in request.overrides]
    url = _api_url(request.profile, ctx.api_url)
    text, taken = parameters_for_prefect(request.deployment, request.given, overrides, url)
    sys.argv[1:] = request.with_parameters(sys.argv[1:], text, taken)


def _api_url(profile: str | None, usual: str | None) -> str | None:
    """The server of `--profile`, which Prefect has not looked at yet."""
    if profile is None:
        return usual
    from prefect.settings import load_profiles

    profiles = load_profiles()
    if profile not in profiles:
        return usual
    from prefect.context import use_profile

    with use_profile(profile, override_environment_variables=True) as context:
        return context.settings.api.url
