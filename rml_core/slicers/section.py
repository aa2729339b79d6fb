"""A slice set as the run file has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from rml_core.config.names import OneOf, wrong
from rml_core.config.problem import shown
from rml_core.config.section import FromList, Place, Section, number_or_list
from rml_core.slicers.grid import Axis, SliceGrid

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Sizes = Annotated[tuple[Positive, ...], FromList, Field(min_length=1)]


def _of_all_axes(value: object) -> object:
    if type(value) is not int or value < 0:
        raise wrong(f"{shown(value)} does not fit", "an integer ≥ 0, or a list with one for each of the sizes")
    return value


Padding = Annotated[
    Annotated[NotNegative, BeforeValidator(_of_all_axes), Tag("<number>")]
    | Annotated[tuple[NotNegative, ...], FromList, Tag("<list>")],
    Discriminator(number_or_list),
]

# Networks take samples of so many axes of space.
MOST_AXES = 3


def _of_dataset(name: str) -> str:
    if name in ("", ".") or "/" in name or "\0" in name:
        raise wrong(f"{shown(name)} cannot be the name of an HDF5 dataset", 'a name without "/", and not "." alone')
    return name


Name = Annotated[str, AfterValidator(_of_dataset)]


class SliceSection(Section):
    """How one array is cut into samples: blocks, tiles in any orientation, or lines."""

    name: Name | None = Field(None, examples=["blocks"])
    """What the set is called, and its dataset in the assembled prediction. None: slice_set_1 and so on."""
    sizes: Sizes = Field(examples=[[64, 64, 64]])
    """The size of a slice along each axis of space; samples do not have the axes of size 1."""
    padding: Padding = 0
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

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[tuple[Place, PydanticCustomError]]:
        if given.get("padding") is not None and given.get("padded_sizes") is not None:
            what = "stands beside padding, and both say what is added"
            yield ("padded_sizes",), wrong(what, "", "leave out one of the two")
        sizes = integers(given, "sizes")
        if not sizes:
            return
        if kept(sizes) > MOST_AXES:
            allowed = f"samples of at most {MOST_AXES}: those of size 1 are dropped"
            yield ("sizes",), wrong(f"{shown(sizes)} makes samples of {kept(sizes)} axes", allowed)
        if given.get("transpose") is True and kept(sizes) != 2:
            what = f"is for 2D samples, and the sizes {shown(sizes)} make {kept(sizes)}D ones"
            yield ("transpose",), wrong(what, "", "leave out transpose")
        for key in ("padding", "padded_sizes", "strides"):
            numbers = integers(given, key)
            if numbers is None:
                continue
            if len(numbers) != len(sizes):
                what = f"{shown(numbers)} does not go with {len(sizes)} sizes"
                yield (key,), wrong(what, "a number for each of the sizes")
                continue
            for axis, (number, size) in enumerate(zip(numbers, sizes, strict=True)):
                flat = 1 if key == "padded_sizes" else 0
                if size == 1 and number > flat and key != "strides":
                    what = f"{number} pads an axis of size 1, which is dropped from the samples"
                    yield (key, axis), wrong(what, str(flat))
                elif key == "padded_sizes" and 0 < number < size:
                    yield (key, axis), wrong(f"{number} is less than the size, {size}", f"at least {size}")

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


def integers(given: Mapping[str, Any], key: str) -> list[int] | None:
    """The list at `key`; None where there is no list of integers."""
    numbers = given.get(key)
    if not isinstance(numbers, list | tuple) or not all(type(number) is int for number in numbers):
        return None
    return list(numbers)


def kept(sizes: Sequence[int]) -> int:
    """How many axes of space the samples have."""
    return sum(size != 1 for size in sizes)


def named(slicers: tuple[SliceSection, ...]) -> tuple[str, ...]:
    """The names of the sets, in their order."""
    return tuple(each.name or f"slice_set_{number}" for number, each in enumerate(slicers, start=1))
