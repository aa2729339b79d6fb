"""Layers that move elements, repeat them, or put zeros between them."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from rml_core.config.names import OneOf, wrong
from rml_core.config.problem import shown
from rml_core.layers.padding import Pair, Sizes
from rml_core.layers.section import ChannelsLast, LayerSection, Misfit, OneOrEach, Run, Shape, per_axis, say


class Flatten(LayerSection):
    """All axes as one, channels last: as Keras orders them."""

    data_format: ChannelsLast = None

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        return (None if None in shape else math.prod(size or 0 for size in shape),)

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import reshaping

        return reshaping.flatten if len(shapes[0]) > 1 else None


def _target(value: object) -> object:
    sizes = value if isinstance(value, list | tuple) else [value]
    if (
        not sizes
        or not all(type(size) is int and (size > 0 or size == -1) for size in sizes)
        or list(sizes).count(-1) > 1
    ):
        raise wrong(f"{shown(value)} is not a shape", "a list of sizes, of which one may be -1")
    return tuple(sizes)


class Reshape(LayerSection):
    """Another shape for the same elements."""

    target_shape: Annotated[Sizes, BeforeValidator(_target)] = Field(examples=[[16, -1]])
    """The sample's new shape, channels last; one size may be -1."""

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        known = math.prod(size for size in self.target_shape if size != -1)
        if None in shape:
            return tuple(None if size == -1 else size for size in self.target_shape)
        total = math.prod(size or 0 for size in shape)
        if total != known and (-1 not in self.target_shape or total % known):
            raise Misfit(
                f"the {total} elements of its input {say(shape)} cannot be given the shape {say(self.target_shape)}"
            )
        return tuple(total // known if size == -1 else size for size in self.target_shape)

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import reshaping

        return reshaping.reshape(len(shapes[0]), self.target_shape)


def _order(value: object) -> object:
    if not isinstance(value, list | tuple) or sorted(value, key=str) != list(range(1, len(value) + 1)):
        raise wrong(f"{shown(value)} is not an order of the axes", "each axis once, counted from 1: [2, 1] swaps two")
    return tuple(value)


class Permute(LayerSection):
    """Its axes in another order."""

    dims: Annotated[Sizes, BeforeValidator(_order)] = Field(examples=[[2, 1, 3]])
    """Which of the input's axes each one is, channels last, counted from 1; the batch stays."""

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        if len(self.dims) != len(shapes[0]):
            raise Misfit(f"orders {len(self.dims)} axes, and is given {say(shapes[0])}")

    def output_shape(self, *shapes: Shape) -> Shape:
        return tuple(shapes[0][axis - 1] for axis in self.dims)

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import reshaping

        return reshaping.permute(self.dims)


class _UpSampling(LayerSection):
    """Larger by a factor an axis; elements are repeated, or interpolated."""

    size: Sizes = Field(default=2, validate_default=True, examples=[2])
    """The factors."""
    data_format: ChannelsLast = None

    @field_validator("size", mode="before", json_schema_input_type=OneOrEach)
    @classmethod
    def _one_an_axis(cls, value: object) -> object:
        assert cls.rank is not None
        return per_axis(value, cls.rank)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        larger = (None if size is None else size * by for size, by in zip(shape, self.size, strict=False))
        return (*larger, shape[-1])

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import reshaping

        return reshaping.upsampling(self.size, "nearest")


class UpSampling1D(_UpSampling):
    rank = 1


class UpSampling2D(_UpSampling):
    rank = 2

    interpolation: Annotated[
        str, OneOf("interpolation", "nearest", "bilinear", "bicubic", "lanczos3", "lanczos5", "area")
    ] = "nearest"
    """How new elements come about; bicubic and lanczos as TensorFlow's, area is nearest."""

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import reshaping

        return reshaping.upsampling(self.size, self.interpolation)


class UpSampling3D(_UpSampling):
    rank = 3


def _pairs(value: Any, rank: int) -> tuple[Pair, ...]:
    """An integer; one an axis; or a pair an axis. In one dimension a list is the pair."""
    axes = value if isinstance(value, list | tuple) else [value] * rank
    if rank == 1 and isinstance(value, list | tuple) and len(value) == 2:
        axes = [value]
    if len(axes) != rank:
        raise wrong(f"{shown(value)} does not fit", f"an integer, or a list of {rank}: integers, or [before, after]")
    pairs = (per_axis(axis, 2, least=0) for axis in axes)
    return tuple((before, after) for before, after in pairs)


class _ZeroPadding(LayerSection):
    """Zeros around."""

    padding: tuple[Pair, ...] = Field(default=1, validate_default=True, examples=[1])
    """How many on each side: for all axes, one an axis, or [before, after] an axis."""
    data_format: ChannelsLast = None

    @field_validator("padding", mode="before", json_schema_input_type=OneOrEach | list[Pair])
    @classmethod
    def _one_an_axis(cls, value: Any) -> object:
        assert cls.rank is not None
        return _pairs(value, cls.rank)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        larger = (None if size is None else size + sum(pair) for size, pair in zip(shape, self.padding, strict=False))
        return (*larger, shape[-1])

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import reshaping

        return reshaping.zero_padding(self.padding)


class ZeroPadding1D(_ZeroPadding):
    rank = 1


class ZeroPadding2D(_ZeroPadding):
    rank = 2


class ZeroPadding3D(_ZeroPadding):
    rank = 3


class Cropping(LayerSection):
    """Without its borders."""

    cropping: tuple[Pair, ...] = Field(default=1, validate_default=True, examples=[1])
    """How many are cut off on each side: for all axes, one an axis, or [before, after] an axis."""
    data_format: ChannelsLast = None

    @field_validator("cropping", mode="before", json_schema_input_type=OneOrEach | list[Pair])
    @classmethod
    def _one_an_axis(cls, value: Any) -> object:
        assert cls.rank is not None
        return _pairs(value, cls.rank)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        sizes = tuple(
            None if size is None else size - sum(pair) for size, pair in zip(shape, self.cropping, strict=False)
        )
        if any(size is not None and size < 1 for size in sizes):
            raise Misfit(f"nothing is left of its input {say(shape)}: its output would be {say((*sizes, shape[-1]))}")
        return (*sizes, shape[-1])

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import reshaping

        return reshaping.cropping(self.cropping)


class Cropping1D(Cropping):
    rank = 1


class Cropping2D(Cropping):
    rank = 2


class Cropping3D(Cropping):
    rank = 3
