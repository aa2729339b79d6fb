"""Names that the user may write in any case, and the tables they are looked up in.

Each class here is the metadata of an `Annotated` field: `Annotated[str, OneOf("precision", "single", "double")]`,
`Annotated[OptimizerSection, Tagged("optimizer", "type", OPTIMIZERS)]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from rml_core.config.problem import listed, nearest, shown


def any_case(name: str) -> str:
    """A regular expression that matches `name` in any case (JSON Schema has no flag for that).

    Without brackets: a terminal of `rich`, as Prefect's commands have it, takes `[oO]` for a style that begins there.
    A schema with a thousand of them took it half a minute to print."""
    return "".join(f"({c.lower()}|{c.upper()})" if c.lower() != c.upper() else c for c in name)


def wrong(what: str, allowed: str = "", remedy: str = "", key: str = "") -> PydanticCustomError:
    """What a validator of a section raises; `key` adds a component to the path."""
    return PydanticCustomError("rml", "{what}", {"what": what, "allowed": allowed, "remedy": remedy, "key": key})


def unknown_name(
    what: str, given: object, names: Iterable[str], later: Iterable[str] = (), key: str = ""
) -> PydanticCustomError:
    """The error for a name that stands in no table; the names in `later` are the language's, but not here yet."""
    names = list(names)
    if not isinstance(given, str):
        article = "an" if what[0] in "aeiou" else "a"
        return wrong(f"{shown(given)} is not the name of {article} {what}", listed(names), key=key)
    coming = {name.casefold(): name for name in later}
    if given.casefold() in coming:
        return wrong(f"{what} {shown(coming[given.casefold()])} is not available yet", listed(names), key=key)
    return wrong(f"unknown {what} {shown(given)}", listed(names), nearest(given, names), key)


class OneOf:
    """A string that is one of `names` in any case; the field holds the canonical spelling."""

    def __init__(self, what: str, *names: str, aliases: Mapping[str, str] | None = None, later: Iterable[str] = ()):
        self.what, self.names, self.later = what, names, tuple(later)
        self.spellings = [*names, *(aliases or {})]
        self._folded = {name.casefold(): name for name in names}
        self._folded |= {alias.casefold(): name for alias, name in (aliases or {}).items()}

    def _look_up(self, given: object) -> str:
        if isinstance(given, str) and given.casefold() in self._folded:
            return self._folded[given.casefold()]
        raise unknown_name(self.what, given, self.names, self.later)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._look_up, core_schema.str_schema())

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        pattern = "^(" + "|".join(any_case(name) for name in self.spellings) + ")$"
        return {"anyOf": [{"enum": list(self.spellings)}, {"type": "string", "pattern": pattern}]}


class Tagged:
    """A section whose key `key` chooses its model from `table` (name, in any case -> model)."""

    def __init__(self, what: str, key: str, table: Mapping[str, type], later: Iterable[str] = ()):
        self.what, self.key, self.table, self.later = what, key, table, tuple(later)
        self._folded = {name.casefold(): name for name in table}

    def _tag(self, value: object) -> str | None:
        given = value.get(self.key) if isinstance(value, Mapping) else getattr(value, self.key, None)
        name = self._folded.get(given.casefold()) if isinstance(given, str) else None
        return f"<{name}>" if name else None

    def _check(self, value: object) -> object:
        if self._tag(value) is not None:
            return value
        if not isinstance(value, Mapping):
            raise wrong(f"{shown(value)} is not an object", f'an object with "{self.key}": {listed(self.table)}')
        if self.key not in value:
            raise wrong("is missing", listed(self.table), key=self.key)
        raise unknown_name(self.what, value[self.key], self.table, self.later, self.key)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _union(self.table, self._tag, self._check, handler)


class Keyed:
    """An object whose one key names the member of `table`: `{"resize": [64, 64]}`."""

    def __init__(self, what: str, table: Mapping[str, type], later: Iterable[str] = ()):
        self.what, self.table, self.later = what, table, tuple(later)
        self._folded = {name.casefold(): name for name in table}

    def _tag(self, value: object) -> str | None:
        if isinstance(value, Mapping):
            return f"<{next(iter(value))}>"
        return next((f"<{name}>" for name, model in self.table.items() if isinstance(value, model)), None)

    def _check(self, value: object) -> object:
        allowed = f"an object with one key, the {self.what}: {listed(self.table)}"
        if not isinstance(value, Mapping):
            if self._tag(value) is None:
                raise wrong(f"{shown(value)} is not an object", allowed)
            return value
        if len(value) != 1:
            raise wrong(f"{shown(value)} has {len(value)} keys", allowed)
        ((given, content),) = value.items()
        if not isinstance(given, str) or given.casefold() not in self._folded:
            raise unknown_name(self.what, given, self.table, self.later)
        return {self._folded[given.casefold()]: content}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return _union(self.table, self._tag, self._check, handler)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The published schema takes the key in any case too; the canonical name stays for editors to offer."""
        published = handler(schema)
        for member in published.get("oneOf", []):
            definition = handler.resolve_ref_schema(member)
            for name, content in list(definition["properties"].items()):
                definition["patternProperties"] = {f"^{any_case(name)}$": content}
            definition.pop("required", None)
            definition["minProperties"] = definition["maxProperties"] = 1
        return published


def _union(
    table: Mapping[str, type],
    tag: Callable[[object], str | None],
    check: Callable[[object], object],
    handler: GetCoreSchemaHandler,
) -> CoreSchema:
    members = {f"<{name}>": handler.generate_schema(model) for name, model in table.items()}
    return core_schema.no_info_before_validator_function(check, core_schema.tagged_union_schema(members, tag))
