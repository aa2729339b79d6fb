"""Convolutions of each channel by itself (depthwise), and of all channels after it (separable)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from rml_core.layers.convolution import PADDINGS, Window, one_group
from rml_core.layers.initializers import GlorotUniform, Initial
from rml_core.layers.regularizers import Penalised
from rml_core.layers.section import Null, Run, Shape, Weight, channels


class _ByChannel(Window):
    """What depthwise and separable convolutions share."""

    depth_multiplier: int = Field(default=1, gt=0)
    """So many outputs for each input channel."""
    depthwise_initializer: Initial = GlorotUniform()
    """What the kernel on each channel begins with."""
    depthwise_regularizer: Penalised = None
    """What the kernel on each channel adds to the loss."""
    depthwise_constraint: Null = None
    groups: Annotated[int, AfterValidator(one_group)] = 1
    """Always 1."""
    # What Keras 2 writes along, and does not use.
    kernel_initializer: Any = None
    kernel_regularizer: Null = None
    kernel_constraint: Null = None

    def _depthwise(self, attribute: str, shape: Shape) -> Weight:
        rank = len(self.kernel_size)
        sizes = (*self.kernel_size, channels(shape), self.depth_multiplier)
        axes = (rank, rank + 1, *range(rank))
        return Weight("depthwise_kernel", attribute, sizes, self.depthwise_initializer, axes=axes)

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True


class _Depthwise(_ByChannel):
    """Convolution of each channel by itself, and a bias."""

    def output_shape(self, *shapes: Shape) -> Shape:
        return (*self.places(shapes[0]), channels(shapes[0]) * self.depth_multiplier)

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        outputs = channels(shapes[0]) * self.depth_multiplier
        return (self._depthwise("weight", shapes[0]), *self.bias(outputs))

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import depthwise

        return depthwise.Depthwise(self.kernel_size, self.strides, self.padding, self.dilation_rate)


class DepthwiseConv1D(_Depthwise):
    rank = 1


class DepthwiseConv2D(_Depthwise):
    rank = 2


class DepthwiseConv3D(_Depthwise):
    rank = 3


class _Separable(_ByChannel):
    """Convolution of each channel by itself, then a matrix on the channels, and a bias."""

    filters: int = Field(gt=0, examples=[16])
    """Output channels."""
    pointwise_initializer: Initial = GlorotUniform()
    """What the matrix on the channels begins with."""
    pointwise_regularizer: Penalised = None
    """What the matrix on the channels adds to the loss."""
    pointwise_constraint: Null = None

    def output_shape(self, *shapes: Shape) -> Shape:
        return (*self.places(shapes[0]), self.filters)

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        rank = len(self.kernel_size)
        sizes = (*(1,) * rank, channels(shapes[0]) * self.depth_multiplier, self.filters)
        axes = (rank + 1, rank, *range(rank))
        pointwise = Weight("pointwise_kernel", "pointwise", sizes, self.pointwise_initializer, axes=axes)
        return (self._depthwise("depthwise", shapes[0]), pointwise, *self.bias(self.filters))

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import depthwise

        return depthwise.Separable(self.kernel_size, self.strides, self.padding, self.dilation_rate)


class SeparableConv1D(_Separable):
    rank = 1
    paddings = (*PADDINGS, "causal")


class SeparableConv2D(_Separable):
    rank = 2
