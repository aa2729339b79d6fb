"""Pooling over windows, and over everything."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from rml_core.layers.convolution import each, padding_of
from rml_core.layers.padding import Sizes, windows
from rml_core.layers.section import ChannelsLast, LayerSection, Misfit, OneOrEach, Run, Shape, per_axis, say


class _Pooling(LayerSection):
    pool_size: Sizes = Field(default=2, validate_default=True, examples=[2])
    """The window's sizes."""
    strides: Sizes | None = None
    """From one window to the next. None: the window's sizes."""
    padding: str | Sizes = "valid"
    """`valid`, `same`, or how much is added on each side."""
    data_format: ChannelsLast = None

    @field_validator("pool_size", "strides", mode="before", json_schema_input_type=OneOrEach)
    @classmethod
    def _one_an_axis(cls, value: Any) -> object:
        assert cls.rank is not None
        return None if value is None else per_axis(value, cls.rank)

    @field_validator("padding", mode="before", json_schema_input_type=str | OneOrEach)
    @classmethod
    def _padding(cls, value: object) -> object:
        assert cls.rank is not None
        return padding_of(value, cls.rank)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        sides = each(self.padding, len(self.pool_size))
        sizes = tuple(map(windows, shape, self.pool_size, self.strides or self.pool_size, sides))
        if any(size is not None and size < 1 for size in sizes):
            raise Misfit(
                f"its window {say(self.pool_size)} is larger than its input {say(shape)}",
                'a larger input, fewer pooling layers, or "padding": "same"',
            )
        return (*sizes, shape[-1])


class _MaxPooling(_Pooling):
    """The largest number of each window."""

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import pooling

        return pooling.max_pooling(self.pool_size, self.strides or self.pool_size, self.padding)


class _AveragePooling(_Pooling):
    """The mean of each window; padding does not count."""

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import pooling

        return pooling.average_pooling(self.pool_size, self.strides or self.pool_size, self.padding)


class MaxPooling1D(_MaxPooling):
    rank = 1


class MaxPooling2D(_MaxPooling):
    rank = 2


class MaxPooling3D(_MaxPooling):
    rank = 3


class AveragePooling1D(_AveragePooling):
    rank = 1


class AveragePooling2D(_AveragePooling):
    rank = 2


class AveragePooling3D(_AveragePooling):
    rank = 3


class _GlobalPooling(LayerSection):
    keepdims: bool = False
    """Keep the spatial axes, with size 1."""
    data_format: ChannelsLast = None

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return (*(1 for _ in shape[:-1]), shape[-1]) if self.keepdims else (shape[-1],)


class _GlobalMaxPooling(_GlobalPooling):
    """The largest number of each channel."""

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import pooling

        return pooling.global_max(len(shapes[0]) - 1, self.keepdims)


class _GlobalAveragePooling(_GlobalPooling):
    """The mean of each channel."""

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import pooling

        return pooling.global_average(len(shapes[0]) - 1, self.keepdims)


class GlobalMaxPooling1D(_GlobalMaxPooling):
    rank = 1


class GlobalMaxPooling2D(_GlobalMaxPooling):
    rank = 2


class GlobalMaxPooling3D(_GlobalMaxPooling):
    rank = 3


class GlobalAveragePooling1D(_GlobalAveragePooling):
    rank = 1


class GlobalAveragePooling2D(_GlobalAveragePooling):
    rank = 2


class GlobalAveragePooling3D(_GlobalAveragePooling):
    rank = 3
