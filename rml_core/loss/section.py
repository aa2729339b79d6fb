"""What every loss says of itself; `rml_core.loss.fit` holds that against a network's output and a target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator

from rml_core.config.names import OneOf, wrong
from rml_core.config.section import FromList, Section
from rml_core.config.target import IGNORED, Target

if TYPE_CHECKING:
    from torch import Tensor

    Objective = Callable[[Tensor, Tensor], Tensor]

Source = Annotated[
    str,
    OneOf("source", "sigmoid", "softmax", "log_softmax", "logits", "probabilities", aliases={"linear": "logits"}),
]


@dataclass(frozen=True)
class Fitted:
    """A loss that fits its network and targets: `source` is what the network's output is taken for, `warnings`
    is what the user should hear before training."""

    source: str
    warnings: tuple[str, ...] = ()


class LossSection(Section, ABC):
    """The `loss` section."""

    target_kinds: ClassVar[tuple[str, ...]] = ("labels", "mask", "values")
    """Kinds of `Target` that the loss compares with."""
    sources: ClassVar[tuple[str, ...]] = ("sigmoid", "softmax", "log_softmax", "logits", "probabilities")
    """What the network's output may be; empty: the loss takes the numbers as they are."""
    sources_to_say: ClassVar[tuple[str, ...]] = ()
    """Those of them that the user has to name: read off the last layer, they are more likely a mistake."""
    needs_two_outputs: ClassVar[bool] = False
    """One output, which stands for the second of two classes, does not do."""

    function: str
    source: Source | None = None
    """What the network's last activation gives; left out, it is read off the last layer. `linear` is `logits`."""

    def weights_needed(self, outputs: int, target: Target) -> int | None:
        """How many numbers `weight` must have for that many output channels; None: the loss takes no weight."""
        return None

    def ignored(self, target: Target) -> int | None:
        """The class index in targets that has no part in loss and metrics; None: every one counts."""
        return IGNORED if target.kind == "mask" else None

    @abstractmethod
    def build(self, fitted: Fitted, output_shape: tuple[int | None, ...], target: Target) -> Objective:
        """The function of output (N, C, *spatial) and target to a scalar on the same device.

        Targets: int64 (N,) for labels, int64 (N, *spatial) with `IGNORED` for masks, float (N, C, *spatial) for
        values. Half precision is computed in float32. Nothing in it waits for the device.
        """


class Weighted(LossSection):
    """A loss with a weight a class."""

    weight: Annotated[tuple[Annotated[float, Field(ge=0)], ...], FromList] | None = None
    """One number a class; means divide by the sum of the weights. None: every class counts alike."""

    @field_validator("weight")
    @classmethod
    def _weighs_something(cls, weight: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weight is not None and sum(weight) == 0:
            raise wrong("weighs nothing", "one number a class, not all of them 0")
        return weight

    def weights_needed(self, outputs: int, target: Target) -> int | None:
        return outputs


class Ignoring(Weighted):
    """A loss that leaves a class out."""

    ignore_index: int | None = None
    """Targets of this class have no part in the loss: a class index for labels, the value in the file for masks."""

    def ignored(self, target: Target) -> int | None:
        # A mask's ignore_index is a value in its files: the data section has made IGNORED of it, and the class
        # indices of the other values need not be the values themselves.
        return self.ignore_index if target.kind == "labels" else super().ignored(target)
