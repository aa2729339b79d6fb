"""Keras's regularisers: what their JSON may say. What they add to the loss is in `modules/penalty.py`.

Formulas: Keras 3's documentation of `keras.regularizers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field

from rml_core.config.names import wrong
from rml_core.config.section import Section
from rml_core.layers.keras_object import folded, read_object


def _null_is(default: float) -> Callable[[object], object]:
    return lambda given: default if given is None else given


Zero = Annotated[float, BeforeValidator(_null_is(0.0)), Field(ge=0)]
OneHundredth = Annotated[float, BeforeValidator(_null_is(0.01)), Field(ge=0)]


class Regularizer(Section):
    """A regulariser's `config`: it adds `l1` * sum |w| + `l2` * sum w² to the loss."""

    model_config = ConfigDict(use_attribute_docstrings=False)

    @property
    def factors(self) -> tuple[float, float]:
        """Of the sum of absolute values, and of the sum of squares."""
        raise NotImplementedError


class L1(Regularizer):
    """l1 * sum |w|."""

    l1: OneHundredth = Field(0.01, validation_alias=AliasChoices("l1", "l"))

    @property
    def factors(self) -> tuple[float, float]:
        return self.l1, 0.0


class L2(Regularizer):
    """l2 * sum w²."""

    l2: OneHundredth = Field(0.01, validation_alias=AliasChoices("l2", "l"))

    @property
    def factors(self) -> tuple[float, float]:
        return 0.0, self.l2


class L1L2(Regularizer):
    """l1 * sum |w| + l2 * sum w²; the bare name means 0.01 for both."""

    l1: Zero = 0.0
    l2: Zero = 0.0

    @property
    def factors(self) -> tuple[float, float]:
        return self.l1, self.l2


REGULARIZERS: dict[str, type[Regularizer]] = {"l1": L1, "l2": L2, "l1_l2": L1L2}
# Keras's function of this name has other defaults than its class.
_FUNCTION = {"l1": 0.01, "l2": 0.01}
_NOT_HERE = ("orthogonalregularizer",)


def _read(value: object) -> object:
    """null, `"l2"`, or `{"class_name": "L2", "config": {"l2": 0.01}}` as Keras writes it."""
    if value is None or isinstance(value, Regularizer):
        return value
    if isinstance(value, str) and value.casefold() == "l1_l2":
        return L1L2(**_FUNCTION)
    name = value.get("class_name") if isinstance(value, dict) else value
    if isinstance(name, str) and folded(name) in _NOT_HERE:
        raise wrong("the orthogonal regulariser is not available", ", ".join(REGULARIZERS))
    return read_object("regulariser", value, REGULARIZERS, {})


Penalised = Annotated[Regularizer | None, BeforeValidator(_read)]
