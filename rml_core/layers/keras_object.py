"""An object of Keras inside a layer's `config`, an initialiser or a regulariser: its name, or its class and config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails

from rml_core.config.names import unknown_name, wrong

Model = TypeVar("Model", bound=BaseModel)


def folded(name: str) -> str:
    """`glorot_uniform`, `GlorotUniform` and TensorFlow's `GlorotUniformV2` are one name."""
    return name.casefold().replace("_", "").removesuffix("v2")


def read_object(kind: str, value: object, table: Mapping[str, type[Model]], aliases: Mapping[str, str]) -> Model:
    """`"he_normal"`, `"HeNormal"`, or `{"class_name": ..., "config": {...}}` with what else Keras writes beside it.

    `table` has the names as messages list them; `aliases` are folded names that stand for one of them. Raises what a
    validator of a section raises.
    """
    name, config = value, None
    if isinstance(value, Mapping):
        name, config = value.get("class_name"), value.get("config")
    models = {folded(each): model for each, model in table.items()}
    given = folded(name) if isinstance(name, str) else ""
    model = models.get(folded(aliases.get(given, given)))
    if model is None:
        raise unknown_name(kind, name, table)
    try:
        return model.model_validate(config or {})
    except ValidationError as error:
        raise ValidationError.from_exception_data(kind, [_below(each) for each in error.errors()]) from None


def _below(error: Any) -> InitErrorDetails:
    """The same error, with `config` before its place."""
    context = error.get("ctx", {})
    kind = wrong(**context) if error["type"] == "rml" else error["type"]
    return InitErrorDetails(type=kind, loc=("config", *error["loc"]), input=error["input"], ctx=context)
