"""A list of transforms at work on one side of a sample: its input, or its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rml_core.transforms.section import DoesNotFit, Shape, TransformSection

# What 8 and 16 bit images are divided by to lie in [0, 1]; other types are never scaled.
WHITE = {np.dtype(np.uint8): np.float32(255), np.dtype(np.uint16): np.float32(65535)}

# The types that OpenCV computes with.
OF_OPENCV = frozenset(np.dtype(name) for name in ("uint8", "uint16", "int16", "float32", "float64"))


def as_float(array: np.ndarray, out: np.ndarray | None = None, scale: bool = True) -> np.ndarray:
    """`array` as float32, where `scale` 8 and 16 bit scaled to [0, 1]; into `out` where it is given."""
    white = WHITE.get(array.dtype) if scale else None
    if white is not None:
        return np.true_divide(array, white, out=out, dtype=np.float32)
    if out is None:
        return array.astype(np.float32, copy=False)
    out[...] = array
    return out


@dataclass(frozen=True)
class Step:
    """A transform, the path of its place in the data section, and its place in the shared list (None: this side's)."""

    transform: TransformSection
    path: str
    shared: int | None


@dataclass(frozen=True)
class Chain:
    """`transforms`, then this side's own; what never touches masks is left out of a mask's chain. `scale`: 8 and 16
    bit become floats in [0, 1], as images do."""

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
    ) -> Chain:
        """`key`: the name of the list `own`, for messages."""
        both = [Step(transform, f"transforms[{i}]", i) for i, transform in enumerate(shared)]
        both += [Step(transform, f"{key}[{i}]", None) for i, transform in enumerate(own)]
        return cls(tuple(step for step in both if step.transform.on_masks or not mask), mask, scale)

    @property
    def leading(self) -> int:
        """How many steps can be applied once and stored in the decoded type: those before the first that is random
        or takes floats."""
        for count, step in enumerate(self.steps):
            if step.transform.random or step.transform.on_floats:
                return count
        return len(self.steps)

    def remaining(self, training: bool) -> tuple[Step, ...]:
        """The steps after the leading ones; random ones act in training only."""
        return tuple(step for step in self.steps[self.leading :] if training or not step.transform.random)

    def shape(self, shape: Shape) -> Shape:
        """What becomes of samples of `shape`. Raises `DoesNotFit`, with the path of the step as its `path`."""
        for step in self.steps:
            try:
                shape = step.transform.shape(shape)
            except DoesNotFit as error:
                error.path = f"{step.path}.{_key(step.transform)}"
                raise
        return shape

    def lead(self, array: np.ndarray) -> np.ndarray:
        """`array` (H, W, C) after the leading steps."""
        for step in self.steps[: self.leading]:
            array = step.transform.apply(_computable(array, self.mask), None, self.mask)
        return array

    def finish(
        self, array: np.ndarray, rng: np.random.Generator | None, draws: dict[int, Any], training: bool
    ) -> np.ndarray:
        """`array` (H, W, C) after the remaining steps.

        `draws` keeps what the shared steps drew: handed to the other side's chain, both do the same.
        """
        for step in self.remaining(training):
            transform, draw = step.transform, None
            if transform.random:
                assert rng is not None
                if step.shared is None:
                    draw = transform.draw(rng, array.shape)
                elif step.shared in draws:
                    draw = draws[step.shared]
                else:
                    draw = draws[step.shared] = transform.draw(rng, array.shape)
            array = as_float(array, scale=self.scale) if transform.on_floats else _computable(array, self.mask)
            array = transform.apply(array, draw, self.mask)
        return array


def _computable(array: np.ndarray, mask: bool) -> np.ndarray:
    """`array` in a type that OpenCV computes with; values of masks, which only move, stay as they are."""
    if mask or array.dtype in OF_OPENCV:
        return array
    exact = array.dtype.kind in "iu" and array.dtype.itemsize > 2
    return array.astype(np.float64 if exact else np.float32)


def _key(transform: TransformSection) -> str:
    return next(iter(type(transform).model_fields))
