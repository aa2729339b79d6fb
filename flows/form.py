"""The schema of a run file as Prefect has it: what its server holds parameters against, and makes its form of.

It is the published schema (`rml schema`), told in the way that the form can show: no references; every choice with a
name; and no defaults, which the form would send along with what somebody fills in (`hdf5_precision` without
`hdf5_outfile` is refused): they stand in the descriptions. Switches keep theirs: the form sends them, touched or not.
It takes whatever the validator takes.
"""

from __future__ import annotations

import json
from typing import Any

from rml_core.run import ROOT, schema

# What a choice is called where the schema has no title for it.
KINDS = {"null": "none", "string": "text", "integer": "number", "number": "number", "array": "list", "object": "object"}
NONE = {"type": "null", "title": "none"}


def section_schema() -> dict[str, Any]:
    """The schema of what stands under `neural_network`."""
    whole = schema()
    section = _told(_written_out(whole["properties"][ROOT], whole["$defs"]))
    _without_none(section)
    return section


def _without_none(section: dict[str, Any]) -> None:
    """Take null out where Prefect takes it anyway: of optional keys of one type, down through objects alone."""
    for member in section["properties"].values():
        if "properties" in member:
            _without_none(member)
        choices = member.get("anyOf", ())
        if len(choices) == 2 and choices[1] == NONE and "type" in choices[0] and "default" not in member:
            del member["anyOf"]
            member |= {key: value for key, value in choices[0].items() if key != "title"}


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


def _told(part: dict[str, Any], name: str = "", required: bool = False) -> dict[str, Any]:
    """`part`, which stands under the key `name`, for the form."""
    told = {key: value for key, value in part.items() if key not in ("default", "discriminator")}
    if name:
        told["title"] = name
    if part.get("type") == "boolean" and "default" in part:
        told["default"] = part["default"]
    elif part.get("default") is not None:
        told["description"] = f"{part.get('description', '')} Default: {json.dumps(part['default'])}.".strip()
    if choices := _choices(told):
        told.pop("oneOf", None)
        told["anyOf"] = choices
        names = choices[0].get("enum", ())
        if required and len(names) == 1:
            # The name of a choice that was made already.
            del told["anyOf"]
            told |= {"type": "string", "pattern": choices[1]["pattern"], "default": names[0]}
        elif any("properties" in choice for choice in choices) and any(choice == NONE for choice in choices):
            # Otherwise the form would begin with the first choice.
            told["default"] = None
    needed = told.get("required", ())
    if "properties" in told:
        told["properties"] = {key: _told(each, key, key in needed) for key, each in told["properties"].items()}
    if "patternProperties" in told:
        told["patternProperties"] = {key: _told(each) for key, each in told["patternProperties"].items()}
    if isinstance(told.get("items"), dict):
        told["items"] = _told(told["items"])
    return told


def _choices(part: dict[str, Any]) -> list[dict[str, Any]]:
    """What may stand there, each with a title; choices of choices are choices."""
    found = []
    for member in [*part.get("anyOf", ()), *part.get("oneOf", ())]:
        inner = _choices(member)
        found += inner or [{**_told(member), "title": _title(member)}]
    if "enum" in next(iter(found), {}):
        found[1] = {**found[1], "title": "in any case"}
    return found


def _title(member: dict[str, Any]) -> str:
    if "enum" in member:
        return "one of"
    return str(member.get("title") or KINDS.get(member.get("type", ""), "value"))
