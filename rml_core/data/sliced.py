"""What slicers make of the one array of a role, and of that of its targets: from headers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from rml_core.config.problem import Problem, Refused, RunFailed, listed
from rml_core.config.target import Target
from rml_core.data import layout
from rml_core.data.files import Form, Found, Header, Item, Role, Shape, channels_first
from rml_core.data.section import Data
from rml_core.data.shapes import Side, Takes, check_equal, through, try_colours
from rml_core.slicers.grid import SliceGrid
from rml_core.slicers.section import named
from rml_core.transforms.chain import Chain
from rml_core.transforms.section import DoesNotFit

# So many arrays of a file are named.
SHOWN = 10
# What sizes are multiples of in networks that halve them once or several times.
HALVED = (2, 4, 8, 16, 32, 64)
# Conversions of colours are tried on so many rows and columns of zeros.
TRIED = 16


class Part(NamedTuple):
    """Samples that are in batches with each other: all of them, or a slice set and its name."""

    name: str
    shape: Shape
    target: Target | None


@dataclass(frozen=True)
class Sliced:
    """The slice sets of a role, in their order.

    `grids`: where their slices lie. `shapes`: of what the network gets, channels first, a set each. `targets`: a set
    each; None: there are none. The forms say whether the arrays lack a channel axis.
    """

    grids: tuple[SliceGrid, ...]
    shapes: tuple[Shape, ...]
    targets: tuple[Target, ...] | None
    input_form: Form
    target_form: Form | None

    @property
    def shape(self) -> Shape:
        """Of a sample of any set: None for sizes that differ between sets."""
        return _common(self.shapes)

    @property
    def target(self) -> Target | None:
        if self.targets is None:
            return None
        return replace(self.targets[0], shape=_common(tuple(target.shape for target in self.targets)))


@dataclass(frozen=True)
class _Array:
    """An array to be cut: its shape with its channels first, and whether these lie there."""

    item: Item
    header: Header
    form: Form

    @property
    def shape(self) -> tuple[int, ...]:
        return self.form.reader.shape(self.header, self.form)

    @property
    def space(self) -> tuple[int, ...]:
        return self.shape[1:]


def sliced(
    data: Data, role: Role, found: Found, target_found: Found | None, where: str, takes: Takes | None = None
) -> Sliced:
    """The slice sets that `data.slicers` cut from the array in `found`. `takes`: what the network makes of samples of
    a shape. Raises `Refused` with every problem."""
    problems: list[Problem] = []
    input_key, target_key = data.path_keys(role)
    array = _one(found, data.input_form, data, f"{where}.{input_key}", problems)
    target = None
    if target_found is not None:
        target = _one(target_found, data.target_form, data, f"{where}.{target_key}", problems)
    chain = data.input_chain.acting(role == "training")
    if array is not None and (problem := _misplaced(array, data, chain, where, input_key, takes)) is not None:
        # What else there is to say of shapes follows from it.
        raise Refused([*problems, problem])
    if array is not None and target is not None:
        problems += _target_problems(array, target, data, where, target_key)
    grids: list[SliceGrid] = []
    if array is not None:
        for number, (name, section) in enumerate(zip(named(data.slicers), data.slicers, strict=True)):
            grid = section.grid(array.space, name)
            grids.append(grid)
            problems += _too_large(grid, array, f"{where}.slicers[{number}].sizes")
    if problems or array is None:
        raise Refused(problems)

    side = Side(where, input_key, *data.largest_batch(role))
    shapes = _shapes(array, grids, chain, side)
    targets = None
    target_chain = data.target_chain.acting(role == "training")
    if data.makes_targets:
        made = _shapes(array, grids, target_chain, side)
        targets = tuple(Target("values", shape) for shape in made)
    elif target is not None:
        made = _shapes(target, grids, target_chain, replace(side, key=target_key))
        mask = target.form.mask
        targets = tuple(Target("mask", shape[1:]) if mask else Target("values", shape) for shape in made)
    return Sliced(tuple(grids), shapes, targets, array.form, target.form if target is not None else None)


def shapes_without_data(data: Data, channels: int | None, where: str) -> list[Part]:
    """The slice sets as the section alone tells them, of `channels` as the network gets them; none where it does not
    tell. Raises `Refused` where a transform cannot take the slices."""
    chain = data.input_chain.acting(data.input_path is not None)
    keeps = all(step.transform.elementwise or step.transform.spatial for step in chain.steps)
    parts = []
    for name, section in zip(named(data.slicers), data.slicers, strict=True):
        space = section.grid(section.sizes, name).sample_shape
        if len(space) != 2 or (channels is not None and keeps):
            parts.append(Part(name, channels_first(through(chain, (*space, channels), where)), None))
    return parts if channels is not None else []


def padded_to_fit(data: Data, part: Part, fits: Callable[[Shape], bool]) -> str | None:
    """The `padded_sizes`, as JSON has them, with which the slices of `part` would fit a network that halves them again
    and again; None: there are none.

    `fits`: whether the network takes samples of a shape, channels first.
    """
    section = data.slicers[named(data.slicers).index(part.name)]
    grid = section.grid(section.sizes, part.name)
    if part.shape[1:] != grid.sample_shape:
        return None
    for factor in HALVED:
        padded = [axis.padded if axis.dropped else -(-axis.padded // factor) * factor for axis in grid.axes]
        if fits((part.shape[0], *(padded[axis] for axis in grid.kept_axes))):
            return f'"padded_sizes": {padded}'
    return None


def _one(found: Found, form: Form, data: Data, where: str, problems: list[Problem]) -> _Array | None:
    """The one array that is there; None, with the problem added, where it is not one that the slicers can cut."""
    if len(found.items) > 1:
        problems.append(_several(found, where))
        return None
    assert found.headers is not None
    (item,), (header,) = found.items, found.headers
    axes, sizes = len(header.shape), len(data.slicers[0].sizes)
    if axes not in (sizes, sizes + 1):
        what = f"{item} has {axes} axes, its shape is {header.shape}, and the slicers have {sizes} sizes"
        allowed = "a size for each axis of space, or for each but the first, which is then the channels"
        problems.append(Problem(where, what, allowed))
        return None
    from rml_core.data.volumes import opened_volume

    form = replace(form, add_channel=axes == sizes)
    try:
        opened_volume(item, form, 0).close()
    except RunFailed as error:
        problems.append(Problem(where, str(error)))
        return None
    return _Array(item, header, form)


def _several(found: Found, where: str) -> Problem:
    files = list(dict.fromkeys(item.file for item in found.items))
    if len(files) > 1:
        given, names, what = str(found.folder), list(dict.fromkeys(found.files)), "files"
        name = files[0]
    else:
        given, names, what = files[0], [item.inside for item in found.items], "arrays"
        name = str(found.items[0])
    shown = listed(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return Problem(where, f"{given} has {len(names)} {what}, and slicers cut one: {shown}", "", f"name it, as {name}")


def _target_problems(array: _Array, target: _Array, data: Data, section: str, key: str) -> Iterator[Problem]:
    where, sizes = f"{section}.{key}", data.slicers[0].sizes
    if target.form.mask and target.shape[0] > layout.COLOURS and array.shape == target.shape:
        yield layout.too_few_sizes(target.shape, target.item, sizes, 1, f"{section}.slicers[0].sizes")
        return
    if array.space != target.space:
        what = f"{array.item} is {_sizes(array.space)}, and its targets in {target.item} {_sizes(target.space)}"
        yield Problem(where, what, "arrays of one shape, channels apart")
    if target.form.mask and target.shape[0] != 1:
        what = f"{target.item}: a mask has one channel, and its shape is {target.shape}, channels first"
        yield Problem(where, what, "", "give one integer a pixel or voxel, the class")


def _misplaced(array: _Array, data: Data, chain: Chain, where: str, key: str, takes: Takes | None) -> Problem | None:
    """That the array is channels last, or that its first axis, taken for channels, is one of space."""
    sizes, shape = data.slicers[0].sizes, array.header.shape
    spatial = data.slicers[0].grid(sizes, "").sample_shape

    def fits(channels: int, *more: int) -> bool:
        try:
            given = chain.shape((*more, *spatial, channels))
        except DoesNotFit:
            return not more
        return takes is None or takes(channels_first(given)) is not None

    problem = layout.volume_problem(shape, array.item, sizes, f"{where}.{key}", fits)
    if problem is not None or len(shape) == len(sizes) or shape[0] <= layout.COLOURS or fits(shape[0]):
        return problem
    for first in (1, sizes[0]):
        if fits(1) if first == 1 else fits(1, first):
            return layout.too_few_sizes(shape, array.item, sizes, first, f"{where}.slicers[0].sizes")
    return None


def _too_large(grid: SliceGrid, array: _Array, where: str) -> Iterator[Problem]:
    large = [number for number, axis in enumerate(grid.axes) if not axis.count]
    if not large:
        return
    sizes, lengths = ([getattr(grid.axes[number], name) for number in large] for name in ("size", "length"))
    axes = f"axis {large[0]}" if len(large) == 1 else f"axes {_and(large)}"
    said = f"{_and(sizes)} {'is' if len(large) == 1 else 'are'} more than {axes} of {array.item}"
    what = f"{said} {'has' if len(large) == 1 else 'have'}, {_and(lengths)}: there are no slices"
    remedy = "or leave discard_remainders out: slices are then filled up"
    yield Problem(f"{where}[{large[0]}]" if len(large) == 1 else where, what, f"at most {_and(lengths)}", remedy)


def _shapes(array: _Array, grids: list[SliceGrid], chain: Chain, side: Side) -> tuple[Shape, ...]:
    """What `chain` makes of the slices of each set, channels first. Raises `Refused`."""
    import numpy as np

    shapes: list[Shape] = []
    problems: list[Problem] = []
    for grid in grids:
        given = (*grid.sample_shape, array.shape[0])
        try:
            shapes.append(channels_first(through(chain, given, side.section)))
            check_equal(chain, given, side.section, side.batch_key, side.batch_size)
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(dict.fromkeys(problems))
    if len(grids[0].sample_shape) == 2:
        still = replace(chain, steps=tuple(step for step in chain.steps if not step.transform.spatial))
        try_colours(np.zeros((TRIED, TRIED, array.shape[0]), array.header.dtype), array.item, still, side)
    return tuple(shapes)


def _common(shapes: tuple[Shape, ...]) -> Shape:
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


def _and(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{listed(first)} and {last}" if first else last


def _sizes(space: tuple[int, ...]) -> str:
    return " x ".join(map(str, space))
