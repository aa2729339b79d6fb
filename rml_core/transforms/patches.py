"""Inpainting: squares of the picture are blacked out, and the target is what was there.

Pathak et al., Context Encoders: Feature Learning by Inpainting, arXiv:1604.07379.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from rml_core.config.section import Section
from rml_core.transforms.geometry import PositiveInt
from rml_core.transforms.section import DoesNotFit, Shape, TransformSection, size_of

if TYPE_CHECKING:
    import numpy as np


class Patches(Section):
    number: PositiveInt = Field(examples=[8])
    """How many squares; they may overlap."""
    size: PositiveInt = Field(examples=[10])
    """The side of each square in pixels."""


class RandomPatches(TransformSection):
    """Context encoding: the input is the sample with square patches at random places blacked out, the target is black
    but for these patches. In evaluation too, with one draw a sample that stays the same. In `transforms` only; black is
    0 at its place of the list: before `normalize` it is the picture's black."""

    random: ClassVar[bool] = True
    always: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    makes_targets: ClassVar[bool] = True
    random_patches: Patches
    """How many patches, and their size."""

    def shape(self, shape: Shape) -> Shape:
        size = self.random_patches.size
        if any(side is not None and side < size for side in shape[:2]):
            raise DoesNotFit(
                f"patches of {size} x {size} are larger than a sample of {size_of(shape)}",
                "take smaller patches, or `resize` before them",
            )
        return shape

    def on_targets(self) -> Self:
        return _PatchesAlone(random_patches=self.random_patches)  # type: ignore[return-value]

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """The first row and the first column of each patch, (number, 2): every place is as probable as any other."""
        size, number = self.random_patches.size, self.random_patches.number
        return rng.integers(0, [shape[0] - size, shape[1] - size], (number, 2), endpoint=True)

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        return self._black_where(self._covered(array, draw), array)

    def _covered(self, array: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """(H, W): whether a pixel lies in a patch."""
        import numpy as np

        covered, size = np.zeros(array.shape[:2], bool), self.random_patches.size
        for row, column in draw.tolist():
            covered[row : row + size, column : column + size] = True
        return covered

    @staticmethod
    def _black_where(black: np.ndarray, array: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.where(black[:, :, None], np.zeros((), array.dtype), array)


class _PatchesAlone(RandomPatches):
    """What `random_patches` is for the target."""

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        return self._black_where(~self._covered(array, draw), array)
