"""The schema of a run file as Prefect has it: what its server holds parameters against, and makes its form of.

It is the published schema (`rml schema`), told in the way that the form can show: no references; every choice with a
name; and no defaults, which the form would send along with what somebody fills in (`hdf5_precision` without
`hdf5_outfile` is refused): they stand in the descriptions. It takes whatever the validator takes.
"""

from __future__ import annotations

import json
from typing import Any

from rml_core.run import ROOT, schema

# What a choice is called where the schema has no title for it.
KINDS = {"null": "none", "string": "text", "integer": "number", "number": "number", "array": "list", "object": "object"}


def section_schema() -> dict[str, Any]:
    """The schema of what stands under `neural_network`."""
    whole = schema()
    section: dict[str, Any] = _told(_written_out(whole["properties"][ROOT], whole["$defs"]))
    return section


def _written_out(part: Any, definitions: dict[str, Any]) -> Any:
    """`part` with what it refers to in its place: Prefect keeps no definitions."""
    if isinstance(part, list):
        return [_written_out(member, definitions) for member in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        definition = definitions[part["$ref"].rpartition("/")[2]]
        part = {**definition, **{key: value for key, value in part.items() if key != "$ref"}}
    return {key: _written_out(value, definitions) for key, value in part.items()}


def _told(part: dict[str, Any]) -> dict[str, Any]:
    """`part` for the form."""
    told = {key: value for key, value in part.items() if key not in ("default", "discriminator")}
    if part.get("default") is not None:
        default = json.dumps(part["default"])
        told["description"] = f"{part.get('description', '')} Default: {default}.".strip()
    if choices := _choices(told):
        told.pop("oneOf", None)
        told["anyOf"] = choices
        if {"type": "null", "title": "none"} in choices:
            told["default"] = None
    for key in ("properties", "patternProperties"):
        if key in told:
            told[key] = {name: _told(member) for name, member in told[key].items()}
    if isinstance(told.get("items"), dict):
        told["items"] = _told(told["items"])
    return told


def _choices(part: dict[str, Any]) -> list[dict[str, Any]]:
    """What may stand there, each with a title; choices of choices are choices."""
    found = []
    for member in [*part.get("anyOf", ()), *part.get("oneOf", ())]:
        inner = _choices(member)
        found += inner or [{**_told(member), "title": _title(member)}]
    return found


def _title(member: dict[str, Any]) -> str:
    if "enum" in member:
        return "one of"
    if "pattern" in member:
        return "in any case"
    return str(member.get("title") or KINDS.get(member.get("type", ""), "value"))
