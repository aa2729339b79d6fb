"""Keras's initialisers: what their JSON may say, and the arrays they draw.

Formulas: Keras 3's documentation of `keras.initializers`; Glorot and Bengio (2010), He et al. arXiv:1502.01852,
LeCun et al. (1998), Saxe et al. arXiv:1312.6120 (orthogonal).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field

from rml_core.config.names import OneOf
from rml_core.config.section import Ints, Section
from rml_core.layers.keras_object import read_object

if TYPE_CHECKING:
    from torch import Generator, Tensor

# The standard deviation of a standard normal cut off at two of them.
_TRUNCATED = 0.87962566103423978
_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")
# What Keras called it at first.
_NORMAL = {"normal": "truncated_normal"}


class Initializer(Section):
    """An initialiser's `config`; `seed` has no effect, every draw comes from the run's seed."""

    model_config = ConfigDict(use_attribute_docstrings=False)

    seed: Any = None
    dtype: Any = None

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """A float32 tensor of Keras's layout `shape`."""
        raise NotImplementedError


class Zeros(Initializer):
    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        import torch

        return torch.zeros(shape, dtype=torch.float32)


class Ones(Initializer):
    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        import torch

        return torch.ones(shape, dtype=torch.float32)


class Constant(Initializer):
    value: float = 0.0

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        import torch

        return torch.full(shape, self.value, dtype=torch.float32)


class RandomUniform(Initializer):
    minval: float = -0.05
    maxval: float = 0.05

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return _uniform(shape, self.minval, self.maxval, generator)


class RandomNormal(Initializer):
    mean: float = 0.0
    stddev: float = Field(default=0.05, ge=0)

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        import torch

        return torch.empty(shape, dtype=torch.float32).normal_(self.mean, self.stddev, generator=generator)


class TruncatedNormal(Initializer):
    mean: float = 0.0
    stddev: float = Field(default=0.05, ge=0)

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        return _truncated(shape, self.mean, self.stddev, generator)


class _Scaled(Initializer):
    """Variance `scale / n`, where n is the fan in, the fan out, or their mean."""

    factor: ClassVar[float]
    fan: ClassVar[str]
    family: ClassVar[str]
    input_axes: Ints | None = None
    output_axes: Ints | None = None

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        around = fans(shape, self.input_axes, self.output_axes)
        return _scaled(shape, around, self.factor, self.fan, self.family, generator)


class GlorotUniform(_Scaled):
    factor, fan, family = 1.0, "fan_avg", "uniform"


class GlorotNormal(_Scaled):
    factor, fan, family = 1.0, "fan_avg", "truncated_normal"


class HeUniform(_Scaled):
    factor, fan, family = 2.0, "fan_in", "uniform"


class HeNormal(_Scaled):
    factor, fan, family = 2.0, "fan_in", "truncated_normal"


class LecunUniform(_Scaled):
    factor, fan, family = 1.0, "fan_in", "uniform"


class LecunNormal(_Scaled):
    factor, fan, family = 1.0, "fan_in", "truncated_normal"


class VarianceScaling(Initializer):
    scale: float = Field(default=1.0, gt=0)
    mode: Annotated[str, OneOf("mode", "fan_in", "fan_out", "fan_avg")] = "fan_in"
    distribution: Annotated[str, OneOf("distribution", *_DISTRIBUTIONS, aliases=_NORMAL)] = "truncated_normal"
    input_axes: Ints | None = None
    output_axes: Ints | None = None

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        around = fans(shape, self.input_axes, self.output_axes)
        return _scaled(shape, around, self.scale, self.mode, self.distribution, generator)


class Orthogonal(Initializer):
    gain: float = 1.0

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        import torch

        rows, columns = math.prod(shape[:-1]), shape[-1]
        normal = torch.empty(max(rows, columns), min(rows, columns), dtype=torch.float32).normal_(generator=generator)
        q, r = torch.linalg.qr(normal)
        q = q * torch.sign(torch.diagonal(r))
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


class Identity(Initializer):
    gain: float = 1.0

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        import torch

        # Of a convolution's kernel only the last two axes, channels in and out, are the matrix: its middle tap.
        matrix = self.gain * torch.eye(*shape[-2:], dtype=torch.float32)
        kernel = torch.zeros(shape, dtype=torch.float32)
        kernel[tuple(size // 2 for size in shape[:-2])] = matrix
        return kernel


INITIALIZERS: dict[str, type[Initializer]] = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_uniform": RandomUniform,
    "random_normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "variance_scaling": VarianceScaling,
    "orthogonal": Orthogonal,
    "identity": Identity,
}
_ALIASES = {
    "uniform": "random_uniform",
    "normal": "random_normal",
    "zero": "zeros",
    "one": "ones",
    "orthogonalinitializer": "orthogonal",
    "identityinitializer": "identity",
}


def _read(value: object) -> object:
    """`"glorot_uniform"`, `"GlorotUniform"`, or `{"class_name": ..., "config": {...}}` as Keras writes it."""
    if isinstance(value, Initializer):
        return value
    # Keras takes this one where none is given.
    return GlorotUniform() if value is None else read_object("initialiser", value, INITIALIZERS, _ALIASES)


Initial = Annotated[Initializer, BeforeValidator(_read)]


def fans(shape: tuple[int, ...], input_axes: Ints | None = None, output_axes: Ints | None = None) -> tuple[int, int]:
    """Fan in and fan out of a weight in Keras's layout (..., in, out), or over the axes that are named."""
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    taps = math.prod(shape[:-2])
    return shape[-2] * taps, shape[-1] * taps


def _scaled(
    shape: tuple[int, ...], around: tuple[int, int], scale: float, mode: str, distribution: str, generator: Generator
) -> Tensor:
    """`around`: fan in and fan out."""
    fan_in, fan_out = around
    n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    variance = scale / max(1.0, n)
    if distribution == "uniform":
        limit = math.sqrt(3 * variance)
        return _uniform(shape, -limit, limit, generator)
    if distribution == "untruncated_normal":
        return RandomNormal(stddev=math.sqrt(variance)).draw(shape, generator)
    return _truncated(shape, 0.0, math.sqrt(variance) / _TRUNCATED, generator)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    import torch

    return torch.empty(shape, dtype=torch.float32).uniform_(low, high, generator=generator)


def _truncated(shape: tuple[int, ...], mean: float, stddev: float, generator: Generator) -> Tensor:
    """A normal cut off at two standard deviations, by inverting its distribution function."""
    import torch

    edge = math.erf(2 / math.sqrt(2))
    values = torch.empty(shape, dtype=torch.float32).uniform_(-edge, edge, generator=generator)
    return values.erfinv_().mul_(math.sqrt(2)).clamp_(-2, 2).mul_(stddev).add_(mean)
