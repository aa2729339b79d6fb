"""Dense: a matrix on the channels."""

from __future__ import annotations

from pydantic import Field

from rml_core.layers.activations import ActivationName, named
from rml_core.layers.initializers import GlorotUniform, Initial, Zeros
from rml_core.layers.regularizers import Penalised
from rml_core.layers.section import Applied, LayerSection, Null, Run, Shape, Weight, channels


class Biased(LayerSection):
    """The keys of all layers that add a bias and end in an activation."""

    activation: ActivationName = "linear"
    """What follows the layer's own computation."""
    use_bias: bool = True
    """Add a learned number to each output channel."""
    bias_initializer: Initial = Zeros()
    """What the bias begins with."""
    bias_regularizer: Penalised = None
    """What the bias adds to the loss."""
    bias_constraint: Null = None

    @property
    def applied(self) -> Applied:
        return named(self.activation)

    def bias(self, size: int) -> tuple[Weight, ...]:
        return (Weight("bias", "bias", (size,), self.bias_initializer),) if self.use_bias else ()


class Kernel(Biased):
    """The keys of all layers with a kernel and a bias."""

    kernel_initializer: Initial = GlorotUniform()
    """What the kernel begins with."""
    kernel_regularizer: Penalised = None
    """What the kernel adds to the loss."""
    kernel_constraint: Null = None


class Dense(Kernel):
    """A matrix on the channels, and a bias."""

    units: int = Field(gt=0, examples=[10])
    """Output channels."""
    lora_rank: Null = None
    lora_alpha: Null = None
    quantization_config: Null = None

    def output_shape(self, *shapes: Shape) -> Shape:
        return (*shapes[0][:-1], self.units)

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        kernel = Weight("kernel", "weight", (channels(shapes[0]), self.units), self.kernel_initializer, axes=(1, 0))
        return (kernel, *self.bias(self.units))

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return len(shapes[0]) == 1

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run:
        from rml_core.layers.modules import dense

        return dense.dense(channels(shapes[0]), self.units, self.use_bias, len(shapes[0]))
