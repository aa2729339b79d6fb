"""Transforms that move pixels, as OpenCV moves them: bilinear, nearest for masks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from rml_core.config.section import FromList
from rml_core.transforms.section import FILLED, DoesNotFit, Shape, TransformSection, size_of

if TYPE_CHECKING:
    import numpy as np

PositiveInt = Annotated[int, Field(ge=1)]
Size = Annotated[tuple[PositiveInt, PositiveInt], FromList]
Probability = Annotated[float, Field(ge=0, le=1)]


def _with_channels(array: np.ndarray) -> np.ndarray:
    """OpenCV drops a channel axis of length one."""
    return array[:, :, None] if array.ndim == 2 else array


class Resize(TransformSection):
    """To width Sx and height Sy: bilinear, without smoothing when it shrinks; nearest for masks."""

    resize: Size = Field(examples=[[64, 64]])
    """[Sx, Sy]: width and height in pixels."""

    def shape(self, shape: Shape) -> Shape:
        return self.resize[1], self.resize[0], shape[2]

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        import cv2

        if array.shape[:2] == self.resize[::-1]:
            return array
        return _with_channels(
            cv2.resize(array, self.resize, interpolation=cv2.INTER_NEAREST if mask else cv2.INTER_LINEAR)
        )


class CenterCrop(TransformSection):
    """The central Sx x Sy pixels; where the margin is odd, its smaller half is left and above."""

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
        height, width, _ = self.shape((array.shape[0], array.shape[1], array.shape[2]))
        assert height is not None
        assert width is not None
        top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
        return array[top : top + height, left : left + width]


class RandomHorizontalFlip(TransformSection):
    """Left and right change places."""

    random: ClassVar[bool] = True
    random_horizontal_flip: Probability = Field(examples=[0.5])
    """How probable the flip is."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> bool:
        return bool(rng.random() < self.random_horizontal_flip)

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        return array[:, ::-1] if draw else array


class RandomVerticalFlip(TransformSection):
    """Top and bottom change places."""

    random: ClassVar[bool] = True
    random_vertical_flip: Probability = Field(examples=[0.5])
    """How probable the flip is."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> bool:
        return bool(rng.random() < self.random_vertical_flip)

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        return array[::-1] if draw else array


class Rotate(TransformSection):
    """Clockwise about the centre ((W-1)/2, (H-1)/2), the size kept, filled with 0; filled pixels of a mask carry no
    weight."""

    rotate: float = Field(examples=[90])
    """Degrees, clockwise."""

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        return rotated(array, self.rotate, mask)


def rotated(array: np.ndarray, degrees: float, mask: bool) -> np.ndarray:
    """`array` (H, W, C) turned clockwise by `degrees`; a mask becomes a signed type, `FILLED` where it has no pixel."""
    import cv2
    import numpy as np

    height, width = array.shape[:2]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # At multiples of 90 degrees the sixteenth digit would decide on which side of a pixel's edge a point falls.
    cos, sin = round(cos, 15), round(sin, 15)
    x, y = (width - 1) / 2, (height - 1) / 2
    # From a pixel of the result to where it lies in `array` (y points down, so clockwise is the positive sense).
    back = np.array([[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]])
    array = np.ascontiguousarray(array)
    if not mask:
        turned = cv2.warpAffine(
            array, back, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=(0, 0, 0, 0)
        )
        return _with_channels(turned)
    exact = np.int16 if array.dtype in (np.uint8, np.int8, np.int16) else np.float64
    turned = cv2.warpAffine(
        array.astype(exact), back, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderValue=FILLED
    )
    return _with_channels(turned.astype(np.int16 if exact is np.int16 else np.int32))
