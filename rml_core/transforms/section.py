"""What every transform is: a section of one key, a shape rule, a draw and a pure function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from rml_core.config.section import Section

if TYPE_CHECKING:
    import numpy as np

# (H, W, C), of samples of other ranks (..., C); sizes are None where they differ between samples or are not known yet.
Shape = tuple[int | None, ...]

# What a transform writes into a mask where it has no pixel to show; no raw value of a mask is this one.
FILLED = -(2**15)


class DoesNotFit(ValueError):
    """A transform cannot take samples of this shape: where its place is in the section, and a remedy."""

    def __init__(self, what: str, remedy: str = ""):
        super().__init__(what)
        self.remedy, self.path = remedy, ""


class TransformSection(Section):
    """One transform of a list. Arrays are (H, W, C); masks are (H, W, 1) of integers.

    `random`: draws anew for each sample and epoch, in training only. `always`: random in evaluation too, with one
    draw a sample. `elementwise`: takes samples of any rank, moves no pixel, and `apply_into` does it to many samples
    at once. `interpolates`: makes values between those that are there. `spatial`: only moves pixels, and every
    channel alike. `warps`: so that OpenCV is faster on four channels than on three. `bounded`: takes samples from a
    certain size on. `on_masks`: acts on masks too. `on_floats`: takes 8 and 16 bit images as floats in [0, 1].
    `makes_targets`: the target of a sample is made of its input.
    """

    random: ClassVar[bool] = False
    always: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
    interpolates: ClassVar[bool] = False
    spatial: ClassVar[bool] = False
    warps: ClassVar[bool] = False
    bounded: ClassVar[bool] = False
    on_masks: ClassVar[bool] = True
    on_floats: ClassVar[bool] = False
    makes_targets: ClassVar[bool] = False

    @property
    def uniform(self) -> bool:
        """Whether an elementwise transform treats all channels alike."""
        return False

    def shape(self, shape: Shape) -> Shape:
        """The shape of what comes out for samples of `shape`; the largest one where it is drawn. Raises
        `DoesNotFit`."""
        return shape

    def least(self, shape: Shape) -> Shape:
        """The smallest shape that can come out; `shape` unless the size is drawn. Raises `DoesNotFit`."""
        return self.shape(shape)

    def on_targets(self) -> Self:
        """What stands for this transform where `transforms` are applied to targets."""
        return self

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """The random numbers for one sample of `shape`; what `apply` gets. None where there are none."""
        return None

    def apply(self, array: np.ndarray, draw: Any = None, mask: bool = False) -> np.ndarray:
        """`array` (H, W, C) transformed; a pure function of its arguments."""
        raise NotImplementedError

    def apply_into(self, array: np.ndarray) -> None:
        """`apply` in place, to `array` (..., C) float32; for elementwise transforms only."""
        raise NotImplementedError


def known(shape: Shape) -> bool:
    return None not in shape


def size_of(shape: Shape) -> str:
    """`640 x 480 (width x height)`, as the run file's sizes are ordered."""
    height, width = ("?" if size is None else size for size in shape[:2])
    return f"{width} x {height} (width x height)"
