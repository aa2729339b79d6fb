"""What a file with weights holds, and what a network has to say of itself so that its layers find theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Held:
    """A layer's weights in a file, in the file's order.

    `path`: its name behind those of the models that it is in; empty where the file tells no names. `place`: where Keras
    3 puts the layer, `("sequential_1", "conv2d")`. `weights`: names and values, as the file has them.
    """

    name: str
    path: tuple[str, ...]
    weights: tuple[tuple[str, Tensor], ...]
    place: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """A file's layers. `keras`: whose version's layout the values have, channels last; 0: torch's layout and names.

    `flipped`: its kernels are mirrored, as Theano has them.
    """

    held: tuple[Held, ...]
    keras: int = 0
    flipped: bool = False


@dataclass(frozen=True)
class Outline:
    """An entry of a network as its file lists it; `inside`: a nested model's entries, None for a layer."""

    name: str
    class_name: str
    inside: tuple[Outline, ...] | None = None


class Slot(Protocol):
    """A weight that a layer of the network has: Keras's name and shape, the torch module's attribute, and the
    permutation from Keras's layout to torch's. What is not `learned` is a moving statistic."""

    @property
    def name(self) -> str: ...
    @property
    def attribute(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def learned(self) -> bool: ...
    @property
    def axes(self) -> tuple[int, ...] | None: ...


class Wanted(Protocol):
    """A layer of the network: its name (`outer/inner` in a nested model), what stands before its weights' names in the
    module's state, and its weights in Keras's order."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def class_name(self) -> str: ...
    @property
    def weights(self) -> Sequence[Slot]: ...
