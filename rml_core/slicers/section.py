"""A slice set as the run file has it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rml_core.config.names import OneOf
from rml_core.config.section import FromList, Section
from rml_core.slicers.grid import Axis, SliceGrid

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Sizes = Annotated[tuple[Positive, ...], FromList]
Padding = Annotated[tuple[NotNegative, ...], FromList]


class SliceSection(Section):
    """How one array is cut into samples: blocks, tiles in any orientation, or lines."""

    name: str | None = Field(None, examples=["xz-slices"])
    """What the set is called, and its dataset in the assembled prediction. None: slice_set_1 and so on."""
    sizes: Sizes = Field(examples=[[64, 64, 64]])
    """The size of a slice along each axis of space; samples do not have the axes of size 1."""
    padding: NotNegative | Padding = 0
    """What is added on each side: a number, for all axes of another size than 1, or one an axis. Not together with
    `padded_sizes`."""
    padded_sizes: Sizes | None = None
    """The size with padding; what is added is split, the smaller half before. None: `sizes` and `padding`."""
    strides: Sizes | None = None
    """From one slice to the next along each axis: less than `sizes` makes them overlap, more leaves gaps. None:
    `sizes`."""
    discard_remainders: bool = False
    """Leave out what is left behind the last whole slice; otherwise the last slice is filled up."""
    transpose: bool = False
    """Swap the two axes of a 2D sample before the network, and back after it."""
    padding_mode: Annotated[str, OneOf("padding mode", "zeros", "edge", "reflect", "context")] = "zeros"
    """What padding and fill are: zeros, the slice's edge, the slice reflected, or real neighbouring voxels where
    there are any, reflected beyond the border."""

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """What is added before and after, along each axis."""
        if self.padded_sizes is not None:
            extra = [total - size for total, size in zip(self.padded_sizes, self.sizes, strict=True)]
            return tuple((more // 2, more - more // 2) for more in extra)
        if isinstance(self.padding, int):
            return tuple((0, 0) if size == 1 else (self.padding, self.padding) for size in self.sizes)
        return tuple((pad, pad) for pad in self.padding)

    def grid(self, lengths: tuple[int, ...], name: str) -> SliceGrid:
        """The slices of an array with `lengths` along its axes of space; `name`: what the set is called in its list."""
        return SliceGrid(
            name,
            tuple(
                Axis(length, size, stride, *pads, self.discard_remainders)
                for length, size, stride, pads in zip(
                    lengths, self.sizes, self.strides or self.sizes, self.pads, strict=True
                )
            ),
            self.transpose,
            self.padding_mode,
        )


def named(slicers: tuple[SliceSection, ...]) -> tuple[str, ...]:
    """The names of the sets, in their order."""
    return tuple(each.name or f"slice_set_{number}" for number, each in enumerate(slicers, start=1))
