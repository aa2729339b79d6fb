"""The user's Prefect profile, so that `prefect` finds this server from every folder and in every new shell.

The file is Prefect's (`profiles.toml`): what is not ours in it is kept as it was found. TOML of tables of plain texts
is all that Prefect writes there; a file that cannot be read is left alone.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.service.state import Options, State, written
from rml_core.config.problem import RunFailed

NAME = "rml"


def profiles_path(given: Mapping[str, str] = os.environ) -> Path:
    """Where this user's Prefect keeps its profiles."""
    home = Path(given.get("PREFECT_HOME") or "~/.prefect").expanduser()
    return Path(given.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()


def settings(options: Options) -> dict[str, str]:
    return {"PREFECT_API_URL": options.api, "PREFECT_PLUGINS_ENABLED": "true"}


def server_of(given: Mapping[str, str] = os.environ) -> str | None:
    """The address of the server that this user's `prefect` and `rml submit` ask; None: there is none."""
    if given.get("PREFECT_API_URL"):
        return given["PREFECT_API_URL"]
    try:
        found = _read(profiles_path(given))
    except RunFailed:
        return None
    name = given.get("PREFECT_PROFILE") or found.get("active") or ""
    address = found.get("profiles", {}).get(name, {}).get("PREFECT_API_URL")
    return None if address is None else str(address)


def put(path: Path, state: State, options: Options) -> bool:
    """Write our profile, and make it the active one unless the active one names a server of its own.

    Returns:
        Whether it is the active one now.

    Raises:
        RunFailed: the file cannot be read or written.
    """
    found = _read(path)
    profiles = found.setdefault("profiles", {})
    active = found.get("active")
    ours = active == NAME or not profiles.get(active or "", {}).get("PREFECT_API_URL")
    remembered = _remembered(state)
    if remembered is None or remembered["path"] != str(path):
        # `null` for what was not there: `rml down` takes it out again.
        before = {"path": str(path), "active": active, "profile": profiles.get(NAME)}
        written(state.profile, json.dumps(before, indent=2) + "\n")
    profiles[NAME] = settings(options)
    if ours:
        found["active"] = NAME
    _write(path, found)
    return ours


def take_back(state: State, options: Options | None) -> None:
    """Leave the user's profiles as they were before `put`, unless our profile is of another service by now."""
    remembered = _remembered(state)
    if remembered is None:
        return
    path = Path(remembered["path"])
    found = _read(path)
    profiles = found.get("profiles", {})
    if options is not None and profiles.get(NAME, {}).get("PREFECT_API_URL") == options.api:
        before = remembered["profile"]
        if before is None:
            del profiles[NAME]
        else:
            profiles[NAME] = before
        if found.get("active") == NAME:
            active = remembered["active"]
            if active is None or (active == NAME and before is None):
                del found["active"]
            else:
                found["active"] = active
        if found.get("profiles") or found.get("active"):
            _write(path, found)
        else:
            path.unlink(missing_ok=True)
    state.profile.unlink(missing_ok=True)


def _remembered(state: State) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(state.profile.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"path", "active", "profile"} <= found.keys() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunFailed(f"{path}, where Prefect keeps its profiles, cannot be read: {error}") from None


def _write(path: Path, content: dict[str, Any]) -> None:
    import toml  # type: ignore[import-untyped]

    try:
        # Where the file is a link, what it points to is replaced, not the link.
        written(path.resolve(), toml.dumps(content))
    except OSError as error:
        raise RunFailed(f"{path}, where Prefect keeps its profiles, cannot be written: {error.strerror}") from None
