"""What every layer's model has: Keras's common keys, its shape arithmetic, its weights and its torch module.

Shapes here are Keras's: channels last, without the batch, None for a size that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict

from rml_core.config.names import wrong
from rml_core.config.problem import listed, shown
from rml_core.config.section import Section
from rml_core.layers.initializers import Initializer
from rml_core.layers.regularizers import Penalised, Regularizer

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int | None, ...]
Run = Callable[..., "Tensor"]


class Misfit(Exception):
    """A layer cannot take the shape that it is given; `graph.py` says which layer that is."""

    def __init__(self, what: str, remedy: str = ""):
        self.what, self.remedy = what, remedy
        super().__init__(what)


@dataclass(frozen=True)
class Weight:
    """One array of a layer.

    `name` and `shape` are Keras's (`kernel`, (3, 3, in, out)); `attribute` is the torch module's, and
    `axes` the permutation from Keras's layout to torch's. What is not `learned` is a moving statistic.
    """

    name: str
    attribute: str
    shape: tuple[int, ...]
    initializer: Initializer
    learned: bool = True
    axes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Applied:
    """An activation with its arguments; `axis` counts Keras's axes, the batch included."""

    name: str = "linear"
    axis: int | tuple[int, ...] = -1
    negative_slope: float = 0.0
    max_value: float | None = None
    threshold: float = 0.0
    alpha: float = 1.0


def say(shape: Shape) -> str:
    """`(8, ?, 3)`."""
    return "(" + ", ".join("?" if size is None else str(size) for size in shape) + ")"


def only(*values: object) -> BeforeValidator:
    """For a key that exists in Keras, of which only the values that change nothing are here yet."""

    def check(value: object) -> object:
        if not any(value is allowed or (value == allowed and type(value) is type(allowed)) for allowed in values):
            raise wrong(f"{shown(value)} is not available yet", listed(shown(allowed) for allowed in values))
        return value

    return BeforeValidator(check)


Null = Annotated[Any, only(None)]
Off = Annotated[Any, only(False, None)]
ChannelsLast = Annotated[Any, only("channels_last", None)]


def _policy(value: object) -> object:
    """A data type as Keras writes it: `"float32"`, or a policy object with that name."""
    name = value
    if isinstance(value, Mapping):
        config = value.get("config")
        name = config.get("name") if isinstance(config, Mapping) else None
    if name not in ("float32", None) or (name is None and value is not None):
        remedy = 'the precision is chosen for the whole run: "precision"'
        raise wrong(f"{shown(value)} would change the computation", '"float32", null', remedy)
    return "float32"


def _batch_shape(value: object) -> object:
    if value is None:
        return None
    sizes = value if isinstance(value, list | tuple) else [None, value]
    if len(sizes) < 2 or not all(size is None or (type(size) is int and size > 0) for size in sizes):
        raise wrong(f"{shown(value)} is not a shape", "[batch, sizes ..., channels], null for what is not known")
    return tuple(sizes)


def _sample_shape(value: object) -> object:
    if value is None:
        return None
    sizes = value if isinstance(value, list | tuple) else [value]
    if not sizes or not all(size is None or (type(size) is int and size > 0) for size in sizes):
        raise wrong(f"{shown(value)} is not a shape", "[sizes ..., channels], null for what is not known")
    return tuple(sizes)


BatchShape = Annotated[tuple[int | None, ...] | None, BeforeValidator(_batch_shape)]
SampleShape = Annotated[tuple[int | None, ...] | None, BeforeValidator(_sample_shape)]


# How JSON may say a size: for all axes, or one an axis.
OneOrEach = int | list[int]


def per_axis(value: object, rank: int, least: int = 1) -> tuple[int, ...]:
    """A size as Keras takes it, an integer or one an axis, as a tuple."""
    sizes: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * rank
    if len(sizes) != rank or not all(type(size) is int and size >= least for size in sizes):
        shape = "an integer" if rank == 1 else f"an integer or a list of {rank}"
        raise wrong(f"{shown(value)} does not fit", f"{shape}, at least {least}")
    return tuple(sizes)


class LayerSection(Section):
    """A layer's `config`."""

    # No schema publishes them, and reading them out of the source takes a third of the time in which a command starts.
    model_config = ConfigDict(use_attribute_docstrings=False)

    rank: ClassVar[int | None] = None
    """How many spatial axes its input must have."""
    modal: ClassVar[bool] = False
    """Whether it computes differently in training: its module takes `training`, None for the mode of the whole."""

    name: str | None = None
    """What checkpoints, connections and messages call the layer. None: its class's name, numbered."""
    trainable: bool = True
    """false: its weights stay as they are."""
    dtype: Annotated[str, BeforeValidator(_policy)] = "float32"
    batch_input_shape: BatchShape = None
    """First layer: the input's shape, [batch, sizes ..., channels]; null for what the data decides."""
    batch_shape: BatchShape = None
    """The same, as Keras 3 writes it."""
    input_shape: SampleShape = None
    """The same without the batch."""
    activity_regularizer: Penalised = None
    """What the layer's output adds to the loss, divided by the samples of the batch."""
    dynamic: Off = False

    @property
    def declared_shape(self) -> Shape | None:
        """The input's shape where the layer carries it, as the first one may."""
        batch = self.batch_input_shape or self.batch_shape
        return batch[1:] if batch else self.input_shape

    @property
    def applied(self) -> Applied:
        """The activation that follows the layer's own computation."""
        return Applied()

    @property
    def random(self) -> bool:
        return False

    def check(self, shapes: tuple[Shape, ...]) -> None:
        """Raises `Misfit` where the number of inputs or their rank is wrong."""
        if len(shapes) != 1:
            raise Misfit(f"takes one input, and is given {len(shapes)}")
        if self.rank is not None and len(shapes[0]) != self.rank + 1:
            wants = ", ".join(["size"] * self.rank + ["channels"])
            raise Misfit(f"needs an input ({wants}), and is given {say(shapes[0])}")

    def with_numbers(self, numbers: tuple[tuple[int, float], ...]) -> Self:
        """The same layer for a call of which some operands, (which, its value), are numbers; raises `Misfit`."""
        raise Misfit(f"takes the outputs of layers, and is given {listed(shown(number) for _, number in numbers)}")

    def output_shape(self, *shapes: Shape) -> Shape:
        """The output's shape for inputs that `check` has passed; raises `Misfit`."""
        return shapes[0]

    def weights(self, *shapes: Shape) -> tuple[Weight, ...]:
        """In Keras's order; raises `Misfit` where the number of channels is not known."""
        return ()

    def regularizer(self, weight: Weight) -> Regularizer | None:
        """What the weight adds to the loss. Keras names the key after the weight: `bias_regularizer`; a
        `depthwise_kernel` has a `depthwise_regularizer`."""
        found: Regularizer | None = getattr(self, f"{weight.name.removesuffix('_kernel')}_regularizer", None)
        return found

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        """Whether `module` returns a new tensor, not a view, that its own gradient does not need."""
        return False

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        """What computes the layer in torch, but for `applied`; None where there is nothing to do.

        A module with weights is an `nn.Module` on the meta device: its weights are put in by `build.py`.
        """
        return None


def channels(shape: Shape) -> int:
    """The size of the last axis; raises `Misfit` where it is not known."""
    if shape[-1] is None:
        raise Misfit(
            f"needs to know how many channels its input {say(shape)} has",
            "give the sizes of the network's input, or pool them away before this layer",
        )
    return shape[-1]
