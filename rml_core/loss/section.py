"""What every loss says of itself; `rml_core.loss.fit` holds that against a network's output and a target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, field_validator

from rml_core.config.names import OneOf, wrong
from rml_core.config.problem import Problem
from rml_core.config.section import FromList, Section
from rml_core.config.target import IGNORED, Target

if TYPE_CHECKING:
    from typing import Protocol

    from torch import Tensor

    class Objective(Protocol):
        def __call__(self, output: Tensor, target: Tensor, kept: Tensor | None = None) -> Tensor: ...


# (C, *spatial); None where the data decide.
Shape = tuple[int | None, ...]

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
    of_classes: ClassVar[bool] = False
    """What it compares is classes as a rule: values are soft ones."""

    function: str
    source: Source | None = None
    """What the network's last activation gives; left out, it is read off the last layer. `linear` is `logits`."""

    def detour(self, source: str, outputs: int) -> str | None:
        """What is done to `source` before it is what the loss takes, in words; None where there is nothing to do."""
        return None

    def unfit(self, output_shape: Shape, target: Target, where: str) -> Iterator[Problem]:
        """What of the loss's own keys does not go with that output and these targets."""
        return iter(())

    def ignored(self, target: Target) -> int | None:
        """The class index in targets that has no part in loss and metrics; None: every one counts."""
        return IGNORED if target.kind == "mask" else None

    @abstractmethod
    def build(self, fitted: Fitted, output_shape: Shape, target: Target) -> Objective:
        """The function of output (N, C, *spatial) and target to a scalar on the same device.

        Targets: int64 (N,) for labels, int64 (N, *spatial) with `IGNORED` for masks, float (N, C, *spatial) for
        values; only these come with `kept` (N, *spatial), bool: where they count (None: everywhere). Where nothing
        counts the loss is 0. Half precision is computed in float32. Nothing in it waits for the device.
        """


class Weighted(LossSection):
    """A loss of classes, or of output channels: each has its weight, and one may be left out."""

    weight: Annotated[tuple[Annotated[float, Field(ge=0)], ...], FromList] | None = None
    """One number a class; means divide by the sum of the weights. None: every class counts alike."""
    ignore_index: int | None = None
    """Targets of this class have no part in the loss: a class index for labels, the value in the file for masks."""

    @field_validator("weight")
    @classmethod
    def _weighs_something(cls, weight: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return weighing(weight)

    def weights_needed(self, outputs: int, target: Target) -> int:
        """How many numbers `weight` must have for that many output channels."""
        return outputs

    def ignored(self, target: Target) -> int | None:
        # A mask's ignore_index is a value in its files: the data section has made IGNORED of it, and the class
        # indices of the other values need not be the values themselves.
        return self.ignore_index if target.kind == "labels" else super().ignored(target)

    def unfit(self, output_shape: Shape, target: Target, where: str) -> Iterator[Problem]:
        outputs = output_shape[0]
        if outputs is not None:
            needed = self.weights_needed(outputs, target)
            yield from miscounted(self.weight, needed, output_shape, f"{where}.weight")
        if self.ignore_index is None:
            return
        where = f"{where}.ignore_index"
        if target.kind == "values":
            yield Problem(
                where,
                "leaves a class out, and the targets are values",
                remedy='take it away, or use labels, or masks with "target_is_mask": true',
            )
        elif target.kind == "labels":
            classes = target.classes or (None if outputs is None else max(outputs, 2))
            if classes is not None and not 0 <= self.ignore_index < classes:
                yield Problem(where, f"{self.ignore_index} is none of the {classes} classes", f"0 to {classes - 1}")


class Elementwise(Weighted):
    """One output is the second of two classes, and `weight` has a number for either. With more outputs class-index
    targets are one-hot, and `weight` has a number an output, as it has where the targets are values."""

    def weights_needed(self, outputs: int, target: Target) -> int:
        return outputs if target.kind == "values" else max(outputs, 2)


def weighing(numbers: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """`numbers` as they are; raises where they are all 0."""
    if numbers is not None and sum(numbers) == 0:
        raise wrong("weighs nothing", "one number a class, not all of them 0")
    return numbers


def miscounted(numbers: Sequence[float] | None, needed: int, output_shape: Shape, where: str) -> Iterator[Problem]:
    """The problem of a list that has not one number a class."""
    if numbers is not None and len(numbers) != needed:
        many = f"{len(numbers)} number{'s' if len(numbers) != 1 else ''}"
        what = f"has {many}, the network's output {shape_text(output_shape)} needs {needed}"
        yield Problem(where, what, "one number a class")


def shape_text(shape: Shape) -> str:
    return str(tuple(shape)).replace("None", "?")
