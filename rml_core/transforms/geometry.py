"""Transforms that cut, scale and mirror: whole pixels, or bilinear as OpenCV does it, nearest for masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from rml_core.config.section import FromList
from rml_core.transforms.section import DoesNotFit, Shape, TransformSection, size_of

if TYPE_CHECKING:
    import numpy as np

PositiveInt = Annotated[int, Field(ge=1)]
Size = Annotated[tuple[PositiveInt, PositiveInt], FromList]
Probability = Annotated[float, Field(ge=0, le=1)]
# A part of a side, never all of it.
Part = Annotated[float, Field(ge=0, lt=1)]


class Resize(TransformSection):
    """To width Sx and height Sy: bilinear, without smoothing when it shrinks; nearest for masks."""

    spatial: ClassVar[bool] = True
    interpolates: ClassVar[bool] = True
    resize: Size = Field(examples=[[64, 64]])
    """[Sx, Sy]: width and height in pixels."""

    def shape(self, shape: Shape) -> Shape:
        return self.resize[1], self.resize[0], shape[2]

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        if array.shape[:2] == self.resize[::-1]:
            return array
        from rml_core.transforms.interpolation import resized

        return resized(array, *self.resize, mask)


class CenterCrop(TransformSection):
    """The central Sx x Sy pixels; where the margin is odd, its smaller half is left and above."""

    spatial: ClassVar[bool] = True
    bounded: ClassVar[bool] = True
    center_crop: Size = Field(examples=[[48, 48]])
    """[Sx, Sy]: width and height in pixels."""

    def shape(self, shape: Shape) -> Shape:
        width, height = self.center_crop
        if shape[0] is None or shape[1] is None:
            return None, None, shape[2]
        if width > shape[1] or height > shape[0]:
            raise DoesNotFit(
                f"{width} x {height} is larger than a sample of {size_of(shape)}", "crop less, or `resize` before it"
            )
        return height, width, shape[2]

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        height, width, _ = self.shape(array.shape)
        assert height is not None
        assert width is not None
        top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
        return array[top : top + height, left : left + width]


class JitterCrop(TransformSection):
    """Cuts round(c S / 2) pixels from each side of an axis of S pixels, c ~ U[0, Cmax) drawn for each axis.

    Samples come out in sizes of their own: end with `resize`.
    """

    spatial: ClassVar[bool] = True
    random: ClassVar[bool] = True
    jitter_crop: Part = Field(examples=[0.2])
    """Cmax: the largest part of a side that is cut off."""

    def least(self, shape: Shape) -> Shape:
        height, width = (None if size is None else size - 2 * _cut(self.jitter_crop, size) for size in shape[:2])
        return height, width, shape[2]

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """c of the rows and of the columns."""
        return rng.random(2) * self.jitter_crop

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        top, left = (_cut(c, size) for c, size in zip(draw.tolist(), array.shape[:2], strict=True))
        return array[top : array.shape[0] - top, left : array.shape[1] - left]


def _cut(c: float, size: int) -> int:
    """How many pixels go from each side; one or two are left of the shortest."""
    return min(round(c * size / 2), (size - 1) // 2)


class RandomHorizontalFlip(TransformSection):
    """Left and right change places."""

    spatial: ClassVar[bool] = True
    random: ClassVar[bool] = True
    random_horizontal_flip: Probability = Field(examples=[0.5])
    """How probable the flip is."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> bool:
        return bool(rng.random() < self.random_horizontal_flip)

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        return _flipped(array, 1) if draw else array


class RandomVerticalFlip(TransformSection):
    """Top and bottom change places."""

    spatial: ClassVar[bool] = True
    random: ClassVar[bool] = True
    random_vertical_flip: Probability = Field(examples=[0.5])
    """How probable the flip is."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> bool:
        return bool(rng.random() < self.random_vertical_flip)

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        return _flipped(array, 0) if draw else array


def _flipped(array: np.ndarray, axis: int) -> np.ndarray:
    from rml_core.transforms.interpolation import flipped

    return flipped(array, axis)
