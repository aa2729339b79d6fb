"""Transforms of the values: colour spaces and normalisation. Neither touches masks."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Discriminator, Field, Tag

from rml_core.config.names import unknown_name, wrong
from rml_core.config.section import Floats, Section, number_or_list
from rml_core.transforms.section import DoesNotFit, Shape, TransformSection

if TYPE_CHECKING:
    import numpy as np


Numbers = Annotated[
    Annotated[float, Tag("<number>")] | Annotated[Floats, Field(min_length=1), Tag("<list>")],
    Discriminator(number_or_list),
]


def _not_zero(std: Numbers) -> Numbers:
    if 0 in (std if isinstance(std, tuple) else (std,)):
        raise wrong("0 cannot be divided by", "a number other than 0, or a list with one a channel")
    return std


class MeanStd(Section):
    mean: Numbers = Field(0.0, examples=[0.5])
    """What is subtracted: a number, or a list with one a channel."""
    std: Annotated[Numbers, AfterValidator(_not_zero)] = Field(1.0, examples=[0.25])
    """What is divided by: a number, or a list with one a channel."""


class Normalize(TransformSection):
    """(x - mean) / std, after 8 and 16 bit images have become floats in [0, 1]."""

    elementwise: ClassVar[bool] = True
    on_masks: ClassVar[bool] = False
    on_floats: ClassVar[bool] = True
    normalize: MeanStd
    """Numbers for all channels, or one a channel."""

    @property
    def uniform(self) -> bool:
        return not isinstance(self.normalize.mean, tuple) and not isinstance(self.normalize.std, tuple)

    def shape(self, shape: Shape) -> Shape:
        for name, numbers in (("mean", self.normalize.mean), ("std", self.normalize.std)):
            if isinstance(numbers, tuple) and len(numbers) != shape[-1]:
                raise DoesNotFit(
                    f"{name} has {len(numbers)} numbers, a sample has {shape[-1]} channels",
                    "give a number, or a list with one a channel",
                )
        return shape

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        array = array.copy()
        self.apply_into(array)
        return array

    def apply_into(self, array: np.ndarray) -> None:
        mean, std = self._numbers
        if not self.uniform and array.ndim > 2 and array.flags.c_contiguous:
            # Whole rows at a time: numpy is slow where it walks over a few channels again and again.
            import numpy as np

            width, channels = array.shape[-2:]
            array = array.reshape(-1, width * channels)
            mean, std = (np.tile(np.broadcast_to(numbers, channels), width) for numbers in (mean, std))
        array -= mean
        array /= std

    @cached_property
    def _numbers(self) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        return np.asarray(self.normalize.mean, np.float32), np.asarray(self.normalize.std, np.float32)


@lru_cache(maxsize=1)
def _codes() -> dict[str, tuple[str, int]]:
    """OpenCV's conversions: folded name without `COLOR_` -> (name, code)."""
    import cv2

    names = [name.removeprefix("COLOR_") for name in dir(cv2) if name.startswith("COLOR_")]
    return {name.casefold(): (name, getattr(cv2, f"COLOR_{name}")) for name in names if name != "COLORCVT_MAX"}


def _known_code(given: str) -> str:
    found = _codes().get(given.casefold().removeprefix("color_"))
    if found is None:
        error = unknown_name(
            "colour conversion", given.upper().removeprefix("COLOR_"), [name for name, _ in _codes().values()]
        )
        context = error.context or {}
        raise wrong(
            context["what"], "OpenCV's names, with or without COLOR_: BGR2RGB, BGR2GRAY, ...", context["remedy"]
        )
    return found[0]


class ConvertColor(TransformSection):
    """Another colour space, as OpenCV converts the decoded type; BGR is what images are read as."""

    on_masks: ClassVar[bool] = False
    convert_color: Annotated[str, AfterValidator(_known_code)] = Field(examples=["BGR2RGB"])
    """The name of an OpenCV conversion, with or without `COLOR_`."""

    def shape(self, shape: Shape) -> Shape:
        channels = shape[2]
        assert channels is not None
        return (*shape[:2], _channels(self.convert_color, channels))

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        import cv2
        import numpy as np

        if array.dtype not in (np.uint8, np.uint16, np.float32):
            array = array.astype(np.float32)
        converted = cv2.cvtColor(np.ascontiguousarray(array), _codes()[self.convert_color.casefold()][1])
        return converted[:, :, None] if converted.ndim == 2 else converted


@lru_cache
def _channels(name: str, channels: int) -> int:
    """How many channels `name` makes of `channels`, asked of OpenCV itself."""
    import cv2
    import numpy as np

    try:
        converted = cv2.cvtColor(np.zeros((16, 16, channels), np.uint8), _codes()[name.casefold()][1])
    except cv2.error:
        raise DoesNotFit(f"{name} does not take samples of {channels} channels") from None
    if converted.shape[:2] != (16, 16):
        raise DoesNotFit(f"{name} changes the width or height: it packs pixels, it is not an image that comes out")
    return 1 if converted.ndim == 2 else int(converted.shape[2])
