"""A list of transforms at work on one side of a sample: its input, or its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rml_core.transforms.floats import WHITE, Ending, as_float
from rml_core.transforms.section import DoesNotFit, Shape, TransformSection

__all__ = ["Chain", "Step", "as_float"]


@dataclass(frozen=True)
class Step:
    """A transform, the path of its place in the data section, and its place in the shared list (None: this side's)."""

    transform: TransformSection
    path: str
    shared: int | None

    @property
    def key(self) -> str:
        """The path with the transform's name."""
        return f"{self.path}.{next(iter(type(self.transform).model_fields))}"


@dataclass(frozen=True)
class Chain:
    """`transforms`, then this side's own; what never touches masks is left out of a mask's chain. `scale`: 8 and 16
    bit become floats in [0, 1], as images do; otherwise they become floats where values between them are made."""

    steps: tuple[Step, ...]
    mask: bool
    scale: bool = True

    @classmethod
    def of(
        cls,
        shared: Sequence[TransformSection],
        own: Sequence[TransformSection],
        key: str,
        mask: bool,
        scale: bool = True,
        targets: bool = False,
    ) -> Chain:
        """`key`: the name of the list `own`, for messages. `targets`: it is the targets' side."""
        both = [Step(each.on_targets() if targets else each, f"transforms[{i}]", i) for i, each in enumerate(shared)]
        both += [Step(each, f"{key}[{i}]", None) for i, each in enumerate(own)]
        return cls(tuple(step for step in both if step.transform.on_masks or not mask), mask, scale)

    # --- what it does to shapes

    def acting(self, training: bool) -> Chain:
        """The steps that act in training, or those that act in evaluation."""
        return replace(self, steps=tuple(step for step in self.steps if _acts(step, training)))

    def shape(self, shape: Shape) -> Shape:
        """What becomes of samples of `shape`: None for sizes that are drawn. Raises `DoesNotFit`, with the path of the
        step as its `path`."""
        least, largest, _ = self._shapes(shape)
        return tuple(one if one == other else None for one, other in zip(least, largest, strict=True))

    def unequal(self, shape: Shape) -> Step | None:
        """The step after which samples of one `shape` are of sizes of their own to the end; None: they are not."""
        least, largest, step = self._shapes(shape)
        return step if least != largest else None

    def asks_sizes(self, shape: Shape) -> bool:
        """Whether a step takes samples from a certain size on, and `shape` does not tell the size that it gets."""
        for step in self.steps:
            if step.transform.bounded and None in shape:
                return True
            shape = step.transform.shape(shape)
        return False

    def _shapes(self, shape: Shape) -> tuple[Shape, Shape, Step | None]:
        """The smallest and the largest shape that can come out, and the last step that told them apart."""
        least = largest = shape
        parted = None
        for step in self.steps:
            alike = least == largest
            try:
                if len(shape) != 3 and not step.transform.elementwise:
                    what = f"acts on 2D samples, and these are {len(shape) - 1}D"
                    raise DoesNotFit(what, "leave it out: only `normalize` goes with such samples")
                least, largest = step.transform.least(least), step.transform.shape(largest)
            except DoesNotFit as error:
                error.path = step.key
                raise
            if alike and least != largest:
                parted = step
        return least, largest, parted

    # --- what it does to samples

    @cached_property
    def leading(self) -> int:
        """How many steps can be applied once and stored in the decoded type: those before the first that is random
        or takes floats."""
        for count, step in enumerate(self.steps):
            if step.transform.random or step.transform.on_floats:
                return count
        return len(self.steps)

    def lead(self, array: np.ndarray) -> np.ndarray:
        """`array` (H, W, C) after the leading steps."""
        for step in self.steps[: self.leading]:
            array = self._applied(step.transform, array, None)
        return array

    def remaining(self, training: bool) -> tuple[Step, ...]:
        """The steps after the leading ones; random ones act in training only, but for those that always do."""
        return self._remaining[training]

    @cached_property
    def _remaining(self) -> dict[bool, tuple[Step, ...]]:
        rest = self.steps[self.leading :]
        return {training: tuple(step for step in rest if _acts(step, training)) for training in (False, True)}

    @cached_property
    def _ends(self) -> dict[bool, int]:
        """How many of the remaining steps stand before the elementwise ones at the end."""
        ends = {}
        for training, steps in self._remaining.items():
            ends[training] = len(steps)
            while ends[training] and steps[ends[training] - 1].transform.elementwise:
                ends[training] -= 1
        return ends

    @cached_property
    def _endings(self) -> dict[bool, Ending]:
        return {
            training: Ending([step.transform for step in steps[self._ends[training] :]], self.scale)
            for training, steps in self._remaining.items()
        }

    def ending(self, training: bool) -> Ending:
        """What makes float32 of a sample, the elementwise steps at the end included; not for masks."""
        return self._endings[training]

    def gathers(self, training: bool) -> bool:
        """Whether nothing but the ending is left to do after the leading steps."""
        return self._ends[training] == 0

    @cached_property
    def _runs(self) -> dict[bool, range]:
        """The steps from the first that warps on, as far as they only move pixels."""
        runs = {}
        for training, steps in self._remaining.items():
            transforms = [step.transform for step in steps[: self._ends[training]]]
            start = next((at for at, transform in enumerate(transforms) if transform.warps), 0)
            stop = start
            while stop < len(transforms) and transforms[stop].spatial:
                stop += 1
            runs[training] = range(start, stop)
        return runs

    def finish(
        self, array: np.ndarray, rng: np.random.Generator | None, draws: dict[int | str, Any], training: bool
    ) -> np.ndarray:
        """`array` (H, W, C) after the remaining steps but the `ending`; a mask is done then.

        `draws` keeps what the steps drew: handed to the other side's chain, the shared ones do the same there; handed
        to a chain of the same steps, all do.
        """
        run, padded = self._runs[training], False
        for at, step in enumerate(self._remaining[training][: self._ends[training]]):
            transform, draw = step.transform, None
            if transform.random:
                assert rng is not None
                place = step.path if step.shared is None else step.shared
                if place not in draws:
                    draws[place] = transform.draw(rng, array.shape)
                draw = draws[place]
            if at == run.start and run and array.shape[2] == 3 and not self.mask:
                array, padded = _with_fourth(self._computable(array)), True
            array = self._applied(transform, array, draw)
            if padded and at == run.stop - 1:
                array, padded = _without_fourth(array), False
        return array

    def _applied(self, transform: TransformSection, array: np.ndarray, draw: Any) -> np.ndarray:
        if transform.on_floats:
            array = as_float(array, scale=self.scale)
        elif transform.interpolates and not self.mask:
            array = self._computable(array)
        return transform.apply(array, draw, self.mask)

    def _computable(self, array: np.ndarray) -> np.ndarray:
        """`array` in a type in which values between its own can be told."""
        return array if self.scale and array.dtype in WHITE else array.astype(np.float32, copy=False)


def _with_fourth(array: np.ndarray) -> np.ndarray:
    from rml_core.transforms.interpolation import with_fourth

    return with_fourth(array)


def _without_fourth(array: np.ndarray) -> np.ndarray:
    from rml_core.transforms.interpolation import without_fourth

    return without_fourth(array)


def _acts(step: Step, training: bool) -> bool:
    return training or step.transform.always or not step.transform.random
