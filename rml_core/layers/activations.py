"""Activations by name, and the layers that are nothing but an activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from rml_core.config.names import unknown_name, wrong
from rml_core.config.problem import shown
from rml_core.layers.initializers import Initial, Zeros
from rml_core.layers.regularizers import Penalised
from rml_core.layers.section import Applied, LayerSection, Misfit, Null, Run, Shape, Weight, say

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
    "hard_silu",
)
ALIASES = {"swish": "silu", "log_softmax_v2": "log_softmax"}
# Further names of Keras and TensorFlow, not listed in messages.
_SPELLINGS = {"hard_swish": "hard_silu"}
# What Keras 2 and Keras 3 write for a function without a name.
_CODE = ("<lambda>", "__lambda__")
_IN_ITS_PLACE = '"relu", or {"class_name": "ReLU", "config": {"max_value": 20}}'
_BY_NAME = {name: name for name in ACTIVATIONS} | ALIASES | _SPELLINGS


def _name(value: object) -> str | Applied:
    """`"relu"`, null, a function object as Keras writes one, or a layer in the place of a function."""
    if isinstance(value, Applied):
        return value
    given, config = value, None
    if isinstance(value, Mapping):
        given, config = value.get("class_name"), value.get("config")
        if isinstance(config, str):
            given, config = config, None
        elif given is None:
            given = value
    if given is None:
        return "linear"
    name = given.casefold() if isinstance(given, str) else ""
    plain = _BY_NAME.get(name) or _BY_NAME.get(name.removesuffix("_v2"))
    if plain and not _arguments(config):
        return plain
    if name in _IN_PLACE:
        return _layer(_IN_PLACE[name], config)
    if name == "prelu":
        raise wrong(f"{shown(value)} has weights of its own", "", "put it into a layer of its own, after this one")
    if plain:
        raise wrong(f"{shown(value)}: arguments of an activation are not available", "a name, or a layer's object")
    if name in _CODE:
        what = f"{shown(given)} is a function in Python, and its code is not in the file"
        raise wrong(what, "", f"the code that built the network says which: write it in its place, as {_IN_ITS_PLACE}")
    raise unknown_name("activation", given, [*ACTIVATIONS, *ALIASES])


def _arguments(config: object) -> bool:
    """Whether an object's config has more than the names that every object has."""
    return isinstance(config, Mapping) and bool(set(config) - {"name", "trainable", "dtype"})


def _layer(model: type[LayerSection], config: object) -> Applied:
    try:
        return model.model_validate(config or {}).applied
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in ("config", *first["loc"]))
        what = first.get("ctx", {}).get("what") or f"{shown(first['input'])} does not fit"
        raise wrong(what, first.get("ctx", {}).get("allowed", ""), key=key) from None


ActivationName = Annotated[str | Applied, BeforeValidator(_name, json_schema_input_type=str)]


def named(activation: str | Applied, axis: int | tuple[int, ...] | None = None) -> Applied:
    """The activation with the arguments that the bare name means: 0.2 for `leaky_relu`."""
    if isinstance(activation, Applied):
        return activation if axis is None else replace(activation, axis=axis)
    if activation == "relu6":
        return Applied("relu", max_value=6.0)
    return Applied(activation, -1 if axis is None else axis, negative_slope=0.2 if activation == "leaky_relu" else 0.0)


def _axes(value: object) -> object:
    axes = value if isinstance(value, list | tuple) else [value]
    if not axes or not all(type(axis) is int for axis in axes):
        raise wrong(
            f"{shown(value)} is not an axis", "an integer, or a list of integers, as Keras counts: -1 is channels"
        )
    return tuple(axes) if len(axes) > 1 else axes[0]


def _shared(value: object) -> object:
    axes = () if value is None else value if isinstance(value, list | tuple) else [value]
    if not all(type(axis) is int for axis in axes):
        raise wrong(f"{shown(value)} is not a list of axes", "a list of integers, as Keras counts: [1, 2], null")
    return tuple(axes)


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
    axis: Axes | None = None
    """softmax and log_softmax: the axis, or axes, over which the numbers add up to 1. None: -1, the channels."""

    @property
    def applied(self) -> Applied:
        return named(self.activation, self.axis)


class Sigmoid(_Elementwise):
    """1 / (1 + exp(-x))."""

    @property
    def applied(self) -> Applied:
        return Applied("sigmoid")


class Tanh(_Elementwise):
    """tanh."""

    @property
    def applied(self) -> Applied:
        return Applied("tanh")


class Swish(_Elementwise):
    """x * sigmoid(x)."""

    @property
    def applied(self) -> Applied:
        return Applied("silu")


class LogSoftmax(_Elementwise):
    """The logarithm of softmax."""

    axis: Axes = -1
    """The axis, or axes, over which the probabilities add up to 1; -1 is the channels."""

    @property
    def applied(self) -> Applied:
        return Applied("log_softmax", self.axis)


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


class ELU(_Elementwise):
    """x, and `alpha` * (exp(x) - 1) below 0."""

    alpha: float = 1.0
    """What it comes near to far below 0, with the opposite sign."""

    @property
    def applied(self) -> Applied:
        return Applied("elu", alpha=self.alpha)


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


class PReLU(LayerSection):
    """x, and a learned alpha times x below 0 (He et al., arXiv:1502.01852)."""

    alpha_initializer: Initial = Zeros()
    """What alpha begins with."""
    alpha_regularizer: Penalised = None
    """What alpha adds to the loss."""
    alpha_constraint: Null = None
    shared_axes: Annotated[tuple[int, ...], BeforeValidator(_shared)] = ()
    """The axes along which alpha is one number, as Keras counts them: [1, 2] leaves one for each channel of an
    image."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return self._alpha(shapes[0]) and shapes[0]

    def _alpha(self, shape: Shape) -> tuple[int, ...]:
        """alpha's shape, channels last."""
        # Keras counts back from the axis before the last one.
        if not all(-len(shape) < axis <= len(shape) and axis for axis in self.shared_axes):
            raise Misfit(f"axis {list(self.shared_axes)} is not one of the axes of its input {say(shape)}")
        shared = {(axis - 1) % len(shape) for axis in self.shared_axes}
        sizes = tuple(1 if place in shared else length for place, length in enumerate(shape))
        known = tuple(length for length in sizes if length is not None)
        if len(known) < len(sizes):
            raise Misfit(
                f"has an alpha for each element, and the sizes of its input {say(shape)} are not all known",
                f'give the sizes, or share alpha: "shared_axes": {list(range(1, len(shape)))}',
            )
        return known

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        shape = self._alpha(shapes[0])
        axes = (len(shape) - 1, *range(len(shape) - 1))
        return (Weight("alpha", "alpha", shape, self.alpha_initializer, axes=axes),)

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import activations

        return activations.PReLU()


# The layers that may stand in the place of an activation.
_IN_PLACE: dict[str, type[LayerSection]] = {
    "relu": ReLU,
    "leakyrelu": LeakyReLU,
    "elu": ELU,
    "softmax": Softmax,
}
