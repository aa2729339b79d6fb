"""Layers that multiply by numbers and add others, given in the file or learned."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from rml_core.config.names import wrong
from rml_core.config.problem import shown
from rml_core.layers.initializers import Constant, Ones, Zeros
from rml_core.layers.section import LayerSection, Misfit, Off, Run, Shape, Weight, channels, say

# Keras's smallest divisor.
_LEAST = 1e-7


def _numbers(value: Any) -> object:
    """A number, or one a channel; Keras may wrap those into lists of their own."""
    inner = value
    while isinstance(inner, list | tuple) and len(inner) == 1 and isinstance(inner[0], list | tuple):
        inner = inner[0]
    each = inner if isinstance(inner, list | tuple) else [inner]
    if not each or not all(type(number) in (int, float) and math.isfinite(number) for number in each):
        raise wrong(f"{shown(value)} does not fit", "a number, or a list of numbers, one a channel")
    return tuple(map(float, each))


Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers, json_schema_input_type=float | list[float])]


def _given(value: object) -> object:
    return None if value is None else _numbers(value)


Given = Annotated[tuple[float, ...] | None, BeforeValidator(_given, json_schema_input_type=float | list[float] | None)]


def _fit(key: str, numbers: tuple[float, ...] | None, shape: Shape) -> None:
    if numbers is not None and len(numbers) not in (1, shape[-1]) and shape[-1] is not None:
        raise Misfit(f"its {key} has {len(numbers)} numbers, and its input {say(shape)} has {shape[-1]} channels")


class Rescaling(LayerSection):
    """x * `scale` + `offset`."""

    scale: Numbers = Field(examples=[0.5])
    """What each number is multiplied by: one for all, or one a channel."""
    offset: Numbers = (0.0,)
    """What is added after that: one for all, or one a channel."""

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        _fit("scale", self.scale, shapes[0])
        _fit("offset", self.offset, shapes[0])

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import scaling

        return scaling.Affine(self.scale, self.offset)


def _channels_or_all(value: object) -> object:
    axes = [] if value is None else value if isinstance(value, list | tuple) else [value]
    if len(axes) > 1 or not all(type(axis) is int for axis in axes):
        raise wrong(f"{shown(value)} is not available", "-1, the channels; null, one number for all")
    return axes[0] if axes else None


class Normalization(LayerSection):
    """(x - mean) / sqrt(variance), each given in the file, or else read from the weights."""

    axis: Annotated[int | None, BeforeValidator(_channels_or_all)] = -1
    """-1, the channels: a mean and a variance for each; null: one of each for all."""
    mean: Given = None
    """The mean; null: a weight."""
    variance: Given = None
    """The variance; null: a weight."""
    invert: Off = False

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        if self.axis not in (None, -1, len(shapes[0])):
            what = f"axis {self.axis} of its input {say(shapes[0])} is not available"
            raise Misfit(what, "only the last axis, the channels, is: -1")
        if (self.mean is None) != (self.variance is None):
            raise Misfit("needs both mean and variance, or neither")
        _fit("mean", self.mean, shapes[0])
        _fit("variance", self.variance, shapes[0])

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        if self.mean is not None:
            return ()
        shape = () if self.axis is None else (channels(shapes[0]),)
        return (
            Weight("mean", "mean", shape, Zeros(), learned=False),
            Weight("variance", "variance", shape, Ones(), learned=False),
            Weight("count", "count", (), Zeros(), learned=False),
        )

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import scaling

        if self.mean is None or self.variance is None:
            return scaling.Standardised(_LEAST)
        deviations = tuple(max(math.sqrt(variance), _LEAST) for variance in self.variance)
        count = max(len(self.mean), len(deviations))
        means = self.mean * (count // len(self.mean))
        deviations *= count // len(deviations)
        return scaling.Affine(
            tuple(1 / deviation for deviation in deviations),
            tuple(-mean / deviation for mean, deviation in zip(means, deviations, strict=True)),
        )


class LayerScale(LayerSection):
    """x times a learned gamma a channel (ConvNeXt of `keras.applications`)."""

    init_values: float = Field(examples=[1e-6])
    """What gamma begins with."""
    projection_dim: int = Field(gt=0, examples=[3])
    """How many channels there are."""

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        if shapes[0][-1] not in (None, self.projection_dim):
            raise Misfit(f"has {self.projection_dim} channels, and its input {say(shapes[0])} has {shapes[0][-1]}")

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        return (Weight("gamma", "weight", (self.projection_dim,), Constant(value=self.init_values)),)

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import scaling

        return scaling.LayerScale()
