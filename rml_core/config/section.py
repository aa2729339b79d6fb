"""The base of every section's model, and the way from pydantic's errors to problems."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from rml_core.config.foreign import NEEDLESS, plain
from rml_core.config.names import wrong
from rml_core.config.problem import Problem, Refused, listed, nearest, shown
from rml_core.config.trust import OWN, Reading

Model = TypeVar("Model", bound=BaseModel)

# Keys and indices that lead to a problem.
Place = tuple[str | int, ...]

# pydantic's types of a wrong type, in the words of JSON.
EXPECTED = {
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "tuple_type": "a list",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true, false",
    "string_type": "a string",
}

# JSON has lists only: a field that holds a tuple takes them (its members stay strict).
FromList = Field(strict=False)
Floats = Annotated[tuple[float, ...], FromList]
Ints = Annotated[tuple[int, ...], FromList]


def number_or_list(value: object) -> str:
    """The tag of a union's member, which is one of `<number>` and `<list>`: what is wrong is then said of the one that
    was meant, at the key itself."""
    return "<list>" if isinstance(value, list | tuple) else "<number>"


class Section(BaseModel):
    """Strict, closed and frozen; a field's docstring is its documentation and its description in the schema."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=False,
        allow_inf_nan=False,
        populate_by_name=True,
        # A run file uses a few of the many layers: only those models are built.
        defer_build=True,
    )

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterable[tuple[Place, PydanticCustomError]]:
        """(place below the section, problem) for what its keys say together; wrong names and types are not its
        business: `given` is what the user wrote."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """What each key says wrong by itself, with the keys that there are: only here the model is known; and
        `contradictions` along with it."""
        errors: list[InitErrorDetails] = []
        model = None
        try:
            model = handler(value)
        except ValidationError as error:
            errors += [cls._with_keys(entry) for entry in error.errors()]
        if isinstance(value, Mapping):
            for place, problem in cls.contradictions(value):
                errors.append(InitErrorDetails(type=problem, loc=place, input=value))
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors) from None
        assert model is not None
        return model

    @classmethod
    def _with_keys(cls, error: Any) -> InitErrorDetails:
        kind: str | PydanticCustomError = error["type"]
        context = error.get("ctx", {})
        if kind == "extra_forbidden" and len(error["loc"]) == 1:
            keys = keys_of(cls)
            given = error["loc"][0]
            kind = wrong("unknown key", listed(keys), NEEDLESS.get(plain(given)) or nearest(given, keys))
        elif kind == "rml":
            kind = wrong(**context)
        return InitErrorDetails(type=kind, loc=error["loc"], input=error["input"], ctx=context)


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys that the JSON may have for `model`, aliases after the names."""
    names, aliases = [], []
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices):
            first, *others = [str(choice) for choice in alias.choices]
            names.append(first)
            aliases.extend(others)
        else:
            names.append(alias if isinstance(alias, str) else name)
    return names + aliases


def parse(model: type[Model], value: object, where: str, reading: Reading = OWN) -> Model:
    """`value` as a `model`; every problem, with its path below `where`, as one `Refused`. `reading`: what the paths in
    it are against, and who wrote them."""
    try:
        return model.model_validate(value, context=reading)
    except ValidationError as error:
        raise Refused(problems_of(error, where)) from None


def problems_of(error: ValidationError, where: str) -> list[Problem]:
    return [_problem(entry, where) for entry in error.errors()]


def _problem(entry: Any, where: str) -> Problem:
    context: Mapping[str, Any] = entry.get("ctx", {})
    path = json_path(where, [part for part in entry["loc"] if not _is_tag(part)])
    if entry["type"] == "rml":
        if context.get("key"):
            path = json_path(path, [context["key"]])
        what, allowed = context["what"], context.get("allowed", "")
        return Problem(path, what, allowed, context.get("remedy", ""))
    if entry["type"] == "missing":
        return Problem(path, "is missing")
    message: str = entry["msg"]
    # "Input should be less than 1", "Tuple should have at most 2 items after validation, not 3".
    allowed = re.sub(r"^\w+ should (be |have )?", "", message).replace(" after validation", "")
    allowed = EXPECTED.get(entry["type"], allowed)
    return Problem(path, f"{shown(entry['input'])} does not fit", allowed)


def _is_tag(part: object) -> bool:
    """Members of a union add their tag, `<Adam>`, to pydantic's path; the user's file has no such key."""
    return isinstance(part, str) and part.startswith("<") and part.endswith(">")


def json_path(where: str, parts: Sequence[str | int]) -> str:
    for part in parts:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    return where
