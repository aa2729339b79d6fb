"""Transforms that turn and enlarge about the centre, the size kept: bilinear, nearest for masks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from rml_core.transforms.geometry import Part
from rml_core.transforms.section import TransformSection

if TYPE_CHECKING:
    import numpy as np


class RandomZoom(TransformSection):
    """Zooms in: c S / 2 pixels of an axis of S pixels leave the picture on each side (fractions count), c ~ U[0, Cmax)
    drawn for each axis; the size is kept."""

    spatial: ClassVar[bool] = True
    warps: ClassVar[bool] = True
    random: ClassVar[bool] = True
    interpolates: ClassVar[bool] = True
    random_zoom: Part = Field(examples=[0.2])
    """Cmax: the largest part of a side that leaves the picture."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """c of the rows and of the columns."""
        return rng.random(2) * self.random_zoom

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        from rml_core.transforms.interpolation import enlarged

        vertical, horizontal = draw.tolist()
        return enlarged(array, vertical * array.shape[0] / 2, horizontal * array.shape[1] / 2, mask)


class Rotate(TransformSection):
    """Clockwise about the centre ((W-1)/2, (H-1)/2), the size kept, filled with 0; filled pixels of a mask carry no
    weight."""

    spatial: ClassVar[bool] = True
    warps: ClassVar[bool] = True
    interpolates: ClassVar[bool] = True
    rotate: float = Field(examples=[90])
    """Degrees, clockwise."""

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        return _rotated(array, self.rotate, mask)


class RandomRotate(TransformSection):
    """As `rotate`, by an angle ~ U(-alpha, alpha)."""

    spatial: ClassVar[bool] = True
    warps: ClassVar[bool] = True
    random: ClassVar[bool] = True
    interpolates: ClassVar[bool] = True
    random_rotate: float = Field(ge=0, examples=[20])
    """alpha: the largest angle, in degrees."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> float:
        """Degrees, clockwise."""
        return (2 * rng.random() - 1) * self.random_rotate

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        return _rotated(array, draw, mask)


def _rotated(array: np.ndarray, degrees: float, mask: bool) -> np.ndarray:
    import numpy as np

    from rml_core.transforms.interpolation import moved

    height, width = array.shape[:2]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # At multiples of 90 degrees the sixteenth digit would decide on which side of a pixel's edge a point falls.
    cos, sin = round(cos, 15), round(sin, 15)
    x, y = (width - 1) / 2, (height - 1) / 2
    # From a pixel of the result to where it lies in `array` (y points down, so clockwise is the positive sense).
    back = np.array([[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]])
    return moved(array, back, mask)
