"""Normalisation over the batch (Ioffe and Szegedy, arXiv:1502.03167), or within each sample: over axes (Ba, Kiros and
Hinton, arXiv:1607.06450), groups of channels (Wu and He, arXiv:1803.08494) or each channel's places (Ulyanov, Vedaldi
and Lempitsky, arXiv:1607.08022)."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from rml_core.config.names import wrong
from rml_core.config.problem import shown
from rml_core.layers.initializers import Initial, Ones, Zeros
from rml_core.layers.regularizers import Penalised
from rml_core.layers.section import LayerSection, Misfit, Null, Off, Run, Shape, Weight, channels, say


def _one_axis(value: object) -> object:
    axes = value if isinstance(value, list | tuple) else [value]
    if len(axes) != 1 or type(axes[0]) is not int:
        raise wrong(f"{shown(value)} is not available", "one axis: -1, the channels")
    return axes[0]


def _several_axes(value: object) -> object:
    axes = value if isinstance(value, list | tuple) else [value]
    if not axes or not all(type(axis) is int for axis in axes):
        raise wrong(f"{shown(value)} is not an axis", "an integer, or a list of integers, as Keras counts")
    return tuple(axes)


def place_of(axis: int, shape: Shape) -> int:
    """The place in a sample's `shape` of an axis as Keras counts, the batch included; raises `Misfit`."""
    size = len(shape) + 1
    if not -size <= axis < size or axis % size == 0:
        raise Misfit(f"axis {axis} is not one of the axes of its input {say(shape)}")
    return axis % size - 1


def size_of(place: int, shape: Shape) -> int:
    """The size of an axis that has weights along it; raises `Misfit` where it is not known."""
    size = shape[place]
    if place == len(shape) - 1:
        return channels(shape)
    if size is None:
        raise Misfit(
            f"needs to know axis {place + 1} of its input {say(shape)}", "give the sizes of the network's input"
        )
    return size


class _Affine(LayerSection):
    """The keys of all normalisations with a beta and a gamma."""

    epsilon: float = Field(default=1e-3, ge=0)
    """Added to the variance."""
    center: bool = True
    """Add a learned beta."""
    scale: bool = True
    """Multiply by a learned gamma."""
    beta_initializer: Initial = Zeros()
    """What beta begins with."""
    gamma_initializer: Initial = Ones()
    """What gamma begins with."""
    beta_regularizer: Penalised = None
    """What beta adds to the loss."""
    gamma_regularizer: Penalised = None
    """What gamma adds to the loss."""
    beta_constraint: Null = None
    gamma_constraint: Null = None

    def _affine(self, shape: tuple[int, ...], axes: tuple[int, ...] | None = None) -> tuple[Weight, ...]:
        gamma = (Weight("gamma", "weight", shape, self.gamma_initializer, axes=axes),) if self.scale else ()
        beta = (Weight("beta", "bias", shape, self.beta_initializer, axes=axes),) if self.center else ()
        return gamma + beta

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True


class BatchNormalization(_Affine):
    """Each channel to mean 0 and variance 1 over the batch; evaluation uses moving statistics."""

    modal = True

    axis: Annotated[int, BeforeValidator(_one_axis)] = -1
    """The axis that keeps its own statistics, as Keras counts: -1 is the channels."""
    momentum: float = Field(default=0.99, ge=0, le=1)
    """The weight of the old value in the moving statistics."""
    moving_mean_initializer: Initial = Zeros()
    """What the moving mean begins with."""
    moving_variance_initializer: Initial = Ones()
    """What the moving variance begins with."""
    renorm: Off = False
    renorm_clipping: Any = None
    renorm_momentum: Any = None
    synchronized: Off = False
    virtual_batch_size: Null = None
    adjustment: Null = None
    fused: Any = None

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        place_of(self.axis, shapes[0])

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        shape = (size_of(place_of(self.axis, shapes[0]), shapes[0]),)
        return (
            *self._affine(shape),
            Weight("moving_mean", "running_mean", shape, self.moving_mean_initializer, learned=False),
            Weight("moving_variance", "running_var", shape, self.moving_variance_initializer, learned=False),
        )

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import normalization

        place = place_of(self.axis, shapes[0])
        last = place == len(shapes[0]) - 1
        # TensorFlow's fused kernel, which Keras 2 takes for images and volumes, keeps the unbiased variance.
        unbiased = keras_version == 2 and len(shapes[0]) in (3, 4) and (last or (len(shapes[0]) == 3 and place == 0))
        return normalization.BatchNorm(
            size_of(place, shapes[0]),
            1 - self.momentum,
            self.epsilon,
            unbiased,
            frozen=not self.trainable,
            dim=1 if last else place + 2,
        )


class LayerNormalization(_Affine):
    """Each sample's numbers along some axes to mean 0 and variance 1."""

    axis: Annotated[tuple[int, ...], BeforeValidator(_several_axes)] = (-1,)
    """The axis, or axes, that mean and variance are taken along, as Keras counts: -1 is the channels."""
    rms_scaling: Off = False

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        if len({place_of(axis, shapes[0]) for axis in self.axis}) < len(self.axis):
            raise Misfit(f"axis {list(self.axis)} names an axis of its input {say(shapes[0])} twice")

    def _places(self, shape: Shape) -> tuple[int, ...]:
        return tuple(sorted(place_of(axis, shape) for axis in self.axis))

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        (shape,) = shapes
        places = self._places(shape)
        sizes = tuple(size_of(place, shape) for place in places) if self.scale or self.center else ()
        last = len(sizes) - 1
        return self._affine(sizes, (last, *range(last)) if places[-1] == len(shape) - 1 else None)

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import normalization

        # Keras's last axis is torch's second.
        axes = len(shapes[0])
        dims = sorted(1 if place == axes - 1 else place + 2 for place in self._places(shapes[0]))
        return normalization.LayerNorm(tuple(dims), axes, self.epsilon)


class GroupNormalization(_Affine):
    """Each sample's groups of channels to mean 0 and variance 1."""

    groups: int = Field(default=32, examples=[3])
    """So many groups of channels; -1: each channel is one."""
    axis: Annotated[int, BeforeValidator(_one_axis)] = -1
    """The channels' axis: the last one."""

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        if place_of(self.axis, shapes[0]) != len(shapes[0]) - 1:
            raise Misfit(
                f"axis {self.axis} of its input {say(shapes[0])} is not available",
                "only the last axis, the channels, is: -1",
            )
        given = channels(shapes[0])
        if self.groups != -1 and (self.groups < 1 or given % self.groups):
            raise Misfit(f"its {self.groups} groups do not divide the {given} channels of its input {say(shapes[0])}")

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        return self._affine((channels(shapes[0]),))

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import normalization

        groups = channels(shapes[0]) if self.groups == -1 else self.groups
        return normalization.GroupNorm(groups, self.epsilon)


class InstanceNormalization(LayerSection):
    """Each sample's channels to mean 0 and variance 1 over their places; the options are torch's."""

    modal = True

    affine: bool = False
    """Multiply each channel by a learned gamma, and add a learned beta."""
    track_running_stats: bool = False
    """Keep moving statistics, which evaluation uses."""
    epsilon: float = Field(default=1e-5, ge=0)
    """Added to the variance."""
    momentum: float = Field(default=0.1, ge=0, le=1)
    """The weight of the new value in the moving statistics."""

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        if math.prod(2 if size is None else size for size in shapes[0][:-1]) == 1:
            raise Misfit(f"needs more than one number of each channel, and is given {say(shapes[0])}")

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        if not self.affine and not self.track_running_stats:
            return ()
        shape = (channels(shapes[0]),)
        learned = (Weight("gamma", "weight", shape, Ones()), Weight("beta", "bias", shape, Zeros()))
        moving = (
            Weight("moving_mean", "running_mean", shape, Zeros(), learned=False),
            Weight("moving_variance", "running_var", shape, Ones(), learned=False),
        )
        return (learned if self.affine else ()) + (moving if self.track_running_stats else ())

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import normalization

        return normalization.InstanceNorm(self.momentum, self.epsilon, frozen=not self.trainable)
