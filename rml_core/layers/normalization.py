"""Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167)."""

from __future__ import annotations

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
        raise wrong(f"{shown(value)} is not available yet", "-1, the channels")
    return axes[0]


class BatchNormalization(LayerSection):
    """Each channel to mean 0 and variance 1 over the batch; evaluation uses moving statistics."""

    axis: Annotated[int, BeforeValidator(_one_axis)] = -1
    """The channels' axis; only the last one is available."""
    momentum: float = Field(default=0.99, ge=0, le=1)
    """The weight of the old value in the moving statistics."""
    epsilon: float = Field(default=1e-3, ge=0)
    """Added to the variance."""
    center: bool = True
    """Add a learned beta to each channel."""
    scale: bool = True
    """Multiply each channel by a learned gamma."""
    beta_initializer: Initial = Zeros()
    """What beta begins with."""
    gamma_initializer: Initial = Ones()
    """What gamma begins with."""
    moving_mean_initializer: Initial = Zeros()
    """What the moving mean begins with."""
    moving_variance_initializer: Initial = Ones()
    """What the moving variance begins with."""
    beta_regularizer: Penalised = None
    """What beta adds to the loss."""
    gamma_regularizer: Penalised = None
    """What gamma adds to the loss."""
    beta_constraint: Null = None
    gamma_constraint: Null = None
    renorm: Off = False
    renorm_clipping: Any = None
    renorm_momentum: Any = None
    synchronized: Off = False
    virtual_batch_size: Null = None
    adjustment: Null = None
    fused: Any = None

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        if self.axis not in (-1, len(shapes[0])):
            raise Misfit(
                f"axis {self.axis} of its input {say(shapes[0])} is not available yet",
                "only the last axis, the channels, is: -1",
            )

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        shape = (channels(shapes[0]),)
        gamma = (Weight("gamma", "weight", shape, self.gamma_initializer),) if self.scale else ()
        beta = (Weight("beta", "bias", shape, self.beta_initializer),) if self.center else ()
        return (
            *gamma,
            *beta,
            Weight("moving_mean", "running_mean", shape, self.moving_mean_initializer, learned=False),
            Weight("moving_variance", "running_var", shape, self.moving_variance_initializer, learned=False),
        )

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import normalization

        # TensorFlow's fused kernel, which Keras 2 takes for images (its last versions for volumes too), keeps the
        # unbiased variance.
        unbiased = keras_version == 2 and len(shapes[0]) == 3
        frozen = not self.trainable
        return normalization.BatchNorm(channels(shapes[0]), 1 - self.momentum, self.epsilon, unbiased, frozen)
