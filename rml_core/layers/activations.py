"""Activations by name, and the layers that are nothing but an activation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from rml_core.config.names import unknown_name, wrong
from rml_core.config.problem import shown
from rml_core.layers.section import Applied, LayerSection, Misfit, Shape, say

ACTIVATIONS = (
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "softmax",
    "log_softmax",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "softplus",
    "softsign",
    "silu",
    "mish",
    "exponential",
)
ALIASES = {"swish": "silu", "log_softmax_v2": "log_softmax"}
_BY_NAME = {name: name for name in ACTIVATIONS} | ALIASES


def _name(value: object) -> str:
    """`"relu"`, null, or a function object as Keras writes one."""
    given = value
    if isinstance(value, Mapping):
        given = value.get("config")
        if not isinstance(given, str):
            raise wrong(
                f"{shown(value)} is not available yet: a layer in the place of an activation",
                ", ".join(ACTIVATIONS),
                "put it into a layer of its own, after this one",
            )
    if given is None:
        return "linear"
    if not isinstance(given, str) or given.casefold() not in _BY_NAME:
        raise unknown_name("activation", given, [*ACTIVATIONS, *ALIASES])
    return _BY_NAME[given.casefold()]


ActivationName = Annotated[str, BeforeValidator(_name)]


def named(name: str, axis: int | tuple[int, ...] = -1) -> Applied:
    """The activation `name` with the arguments that the bare name means: 0.2 for `leaky_relu`."""
    if name == "relu6":
        return Applied("relu", max_value=6.0)
    return Applied(name, axis, negative_slope=0.2 if name == "leaky_relu" else 0.0)


def _axes(value: object) -> object:
    axes = value if isinstance(value, list | tuple) else [value]
    if not axes or not all(type(axis) is int for axis in axes):
        raise wrong(
            f"{shown(value)} is not an axis", "an integer, or a list of integers, as Keras counts: -1 is channels"
        )
    return tuple(axes) if len(axes) > 1 else axes[0]


Axes = Annotated[int | tuple[int, ...], BeforeValidator(_axes)]


class _Elementwise(LayerSection):
    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        axes = self.applied.axis if isinstance(self.applied.axis, tuple) else (self.applied.axis,)
        size = len(shapes[0]) + 1
        if any(axis % size == 0 or not -size <= axis < size for axis in axes):
            raise Misfit(f"axis {list(axes)} is not one of the axes of its input {say(shapes[0])}")


class Activation(_Elementwise):
    """An activation by name."""

    activation: ActivationName = Field(examples=["relu"])
    """Which one."""
    axis: Axes = -1
    """softmax and log_softmax: the axis, or axes, over which the numbers add up to 1; -1 is the channels."""

    @property
    def applied(self) -> Applied:
        return named(self.activation, self.axis)


class Softmax(_Elementwise):
    """softmax."""

    axis: Axes = -1
    """The axis, or axes, over which the numbers add up to 1; -1 is the channels."""

    @property
    def applied(self) -> Applied:
        return Applied("softmax", self.axis)


class ReLU(_Elementwise):
    """x from `threshold` to `max_value`; below it `negative_slope` * (x - `threshold`)."""

    max_value: float | None = Field(default=None, ge=0)
    """Nothing is larger."""
    negative_slope: float = Field(default=0.0, ge=0)
    """The slope below `threshold`."""
    threshold: float = Field(default=0.0, ge=0)
    """Where it begins."""

    @property
    def applied(self) -> Applied:
        if self.max_value is None and self.threshold == 0 and self.negative_slope:
            return Applied("leaky_relu", negative_slope=self.negative_slope)
        return Applied("relu", -1, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(_Elementwise):
    """x, and `negative_slope` * x below 0."""

    negative_slope: float = Field(default=0.3, ge=0)
    """The slope below 0; `alpha` in Keras 2."""

    @model_validator(mode="before")
    @classmethod
    def _alpha(cls, value: Any) -> Any:
        """Keras 2 says `alpha`."""
        if isinstance(value, Mapping) and "alpha" in value:
            if "negative_slope" in value:
                raise wrong('stands beside "negative_slope"', "one of the two", key="alpha")
            return {("negative_slope" if key == "alpha" else key): item for key, item in value.items()}
        return value

    @property
    def applied(self) -> Applied:
        return Applied("leaky_relu", negative_slope=self.negative_slope)
