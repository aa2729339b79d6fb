"""Convolutions and transposed convolutions in 1, 2 and 3 dimensions."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from rml_core.config.names import unknown_name, wrong
from rml_core.config.problem import shown
from rml_core.layers.dense import Biased, Kernel
from rml_core.layers.padding import Pair, Sizes, extent, transposed, transposed_crop, windows
from rml_core.layers.section import ChannelsLast, Misfit, OneOrEach, Run, Shape, Weight, channels, per_axis, say

PADDINGS = ("valid", "same")


def padding_of(value: object, rank: int, names: tuple[str, ...] = PADDINGS) -> str | Sizes:
    """`valid`, `same`, or zeros to add on each side, an integer or one an axis."""
    if not isinstance(value, str):
        return per_axis(value, rank, least=0)
    if value.casefold() not in names:
        raise unknown_name("padding", value, names)
    return value.casefold()


def each(padding: str | Sizes, rank: int) -> tuple[str | int, ...]:
    """One padding an axis."""
    return padding if isinstance(padding, tuple) else (padding,) * rank


class Window(Biased):
    """The keys of all layers that lay a window on each place."""

    paddings: ClassVar[tuple[str, ...]] = PADDINGS

    kernel_size: Sizes = Field(examples=[3])
    """The window's sizes."""
    strides: Sizes = Field(default=1, validate_default=True)
    """From one window to the next; of a transposed convolution, how much larger its output is."""
    padding: str | Sizes = "valid"
    """`valid`, `same`, or how much is added on each side; Conv1D and SeparableConv1D: `causal` too, which adds
    before the beginning alone."""
    dilation_rate: Sizes = Field(default=1, validate_default=True)
    """From one element of the window to the next."""
    data_format: ChannelsLast = None

    @field_validator("kernel_size", "strides", "dilation_rate", mode="before", json_schema_input_type=OneOrEach)
    @classmethod
    def _one_an_axis(cls, value: object) -> object:
        assert cls.rank is not None
        return per_axis(value, cls.rank)

    @field_validator("padding", mode="before", json_schema_input_type=str | OneOrEach)
    @classmethod
    def _padding(cls, value: object) -> object:
        assert cls.rank is not None
        return padding_of(value, cls.rank, cls.paddings)

    @property
    def reach(self) -> Sizes:
        return tuple(map(extent, self.kernel_size, self.dilation_rate))

    def places(self, shape: Shape) -> Shape:
        """How many windows there are along each axis; raises `Misfit`."""
        sides = each(self.padding, len(self.kernel_size))
        sizes = tuple(map(windows, shape, self.reach, self.strides, sides))
        if any(size is not None and size < 1 for size in sizes):
            reach = "" if self.reach == self.kernel_size else f", which dilation makes {say(self.reach)},"
            raise Misfit(
                f"its kernel {say(self.kernel_size)}{reach} is larger than its input {say(shape)}",
                'a larger input, a smaller kernel, or "padding": "same"',
            )
        return sizes


class _Windowed(Window, Kernel):
    """What convolutions and their transposes share."""

    filters: int = Field(gt=0, examples=[16])
    """Output channels."""
    groups: int = Field(default=1, gt=0)
    """So many groups of channels are convolved by themselves."""


class _Convolution(_Windowed):
    """Convolution, and a bias."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return (*self.places(shapes[0]), self.filters)

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        given = channels(shapes[0])
        if given % self.groups or self.filters % self.groups:
            raise Misfit(
                f"its {self.groups} groups do not divide both the {given} channels of its input {say(shapes[0])}"
                f" and its {self.filters} filters"
            )
        rank = len(self.kernel_size)
        shape = (*self.kernel_size, given // self.groups, self.filters)
        axes = (rank + 1, rank, *range(rank))
        return (Weight("kernel", "weight", shape, self.kernel_initializer, axes=axes), *self.bias(self.filters))

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import convolution

        return convolution.convolution(
            channels(shapes[0]),
            self.filters,
            self.kernel_size,
            self.strides,
            self.padding,
            self.dilation_rate,
            self.groups,
            self.use_bias,
        )


class Conv1D(_Convolution):
    rank = 1
    paddings = (*PADDINGS, "causal")


class Conv2D(_Convolution):
    rank = 2


class Conv3D(_Convolution):
    rank = 3


def one_group(groups: int) -> int:
    """Keras writes `groups` for layers that have none."""
    if groups != 1:
        raise wrong(f"{shown(groups)}: this layer has no groups", "1")
    return groups


class _Transposed(_Windowed):
    """Transposed convolution, and a bias."""

    groups: Annotated[int, AfterValidator(one_group)] = 1
    """Always 1."""
    output_padding: Sizes | None = None
    """How much longer the output is at its end, less than the strides. None: Keras's default."""

    @field_validator("output_padding", mode="before", json_schema_input_type=OneOrEach | None)
    @classmethod
    def _below_strides(cls, value: Any, info: ValidationInfo) -> object:
        assert cls.rank is not None
        if value is None:
            return None
        extra = per_axis(value, cls.rank, least=0)
        strides = info.data.get("strides")
        if strides and any(more >= stride for more, stride in zip(extra, strides, strict=True)):
            raise wrong(f"{shown(value)} does not fit", f"less than the strides, {shown(strides)}")
        return extra

    @property
    def _axes(self) -> tuple[tuple[int, int, str | int, int | None], ...]:
        rank = len(self.kernel_size)
        extra = self.output_padding or (None,) * rank
        return tuple(zip(self.reach, self.strides, each(self.padding, rank), extra, strict=True))

    @property
    def _crops(self) -> tuple[Pair, ...]:
        return tuple(transposed_crop(*axis) for axis in self._axes)

    def output_shape(self, *shapes: Shape) -> Shape:
        (shape,) = shapes
        sizes = tuple(transposed(size, *axis) for size, axis in zip(shape, self._axes, strict=False))
        if any(size is not None and size < 1 for size in sizes):
            raise Misfit(
                f"nothing is left of its input {say(shape)}: its output would be {say((*sizes, self.filters))}"
            )
        return (*sizes, self.filters)

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        rank = len(self.kernel_size)
        shape = (*self.kernel_size, self.filters, channels(shapes[0]))
        axes = (rank + 1, rank, *range(rank))
        return (Weight("kernel", "weight", shape, self.kernel_initializer, axes=axes), *self.bias(self.filters))

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return all(after <= before for before, after in self._crops)

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import convolution

        return convolution.transposed(
            channels(shapes[0]),
            self.filters,
            self.kernel_size,
            self.strides,
            self._crops,
            self.dilation_rate,
            self.use_bias,
        )


class Conv1DTranspose(_Transposed):
    rank = 1


class Conv2DTranspose(_Transposed):
    rank = 2


class Conv3DTranspose(_Transposed):
    rank = 3
