"""The shapes of a side's samples, from headers, and whether they can be batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rml_core.config.problem import Problem, Refused, RunFailed
from rml_core.data import layout
from rml_core.data.files import MOST_AXES, NAMED, Form, Found, Header, Item, Shape, channels_first, refuse_failures
from rml_core.transforms.chain import Chain, Step
from rml_core.transforms.section import DoesNotFit, known, size_of

if TYPE_CHECKING:
    import numpy as np

# What the network makes of samples of a shape, channels first both; None: it does not take them.
Takes = Callable[[Shape], Shape | None]

# A size that no transform is too large for, where only the order of the transforms counts.
ANY_SIZE = (1 << 20, 1 << 20)


@dataclass(frozen=True)
class Side:
    """Where problems of inputs or targets are reported, and how many samples must be of one size."""

    section: str
    key: str
    batch_key: str
    batch_size: int

    @property
    def where(self) -> str:
        return f"{self.section}.{self.key}"


def input_form(form: Form, found: Found, chain: Chain, takes: Takes | None) -> Form:
    """`form`, with a channel added where the network takes samples only so. Without `takes` they are taken as they
    are."""
    shape = _first_shape(form, found)
    if shape is None or len(shape) == MOST_AXES:
        return form
    added = replace(form, add_channel=True)
    if not shape:
        return added
    lacks = takes is not None and not _fits(shape, form, chain, takes) and _fits(shape, added, chain, takes)
    return added if lacks else form


def _fits(shape: tuple[int, ...], form: Form, chain: Chain, takes: Takes) -> bool:
    try:
        given = chain.shape(_last(form.reader.shape(Header(shape, ""), form)))
    except DoesNotFit:
        return False
    return takes(channels_first(given)) is not None


def layout_problem(found: Found, form: Form, chain: Chain, side: Side, takes: Takes | None) -> Problem | None:
    """What is wrong with the layout of arrays that the network does not take, where that is to be seen."""
    if takes is None or _first_shape(form, found) is None:
        return None

    def fits(shape: tuple[int, ...]) -> bool:
        added = len(shape) < MOST_AXES and _fits(shape, replace(form, add_channel=True), chain, takes)
        return added or (bool(shape) and _fits(shape, replace(form, add_channel=False), chain, takes))

    return layout.problem(found, form, side.where, fits)


def target_form(form: Form, found: Found, output: Shape) -> Form:
    """`form`, with a channel added where targets have an axis less than what they are compared with."""
    shape = _first_shape(form, found)
    return form if shape is None else replace(form, add_channel=not shape or len(shape) == len(output) - 1)


def _first_shape(form: Form, found: Found) -> tuple[int, ...] | None:
    """None where the type itself says where the channels are."""
    if found.headers is None or form.reader.channels(form) is not None:
        return None
    return found.headers[0].shape


def shape_of(found: Found, form: Form, chain: Chain, side: Side) -> Shape:
    """The shape of all samples after the transforms, channels first, None for sizes that differ; sizes are measured
    only where no transform makes them equal. Raises `Refused`."""
    reader, headers = form.reader, found.headers
    if headers is None:
        unknown = (None, None, reader.channels(form))
        shape = through(chain, unknown, side.section)
        if known(shape) and not chain.asks_sizes(unknown):
            return channels_first(shape)
        measured, failures = reader.measure(found.items, form)
        refuse_failures(failures, side.where)
        headers = tuple(header for header in measured if header is not None)
    first_of: dict[tuple[int, ...], Item] = {}
    for item, header in zip(found.items, headers, strict=True):
        first_of.setdefault(header.shape, item)
    given = {reader.shape(header, form): first_of[header.shape] for header in dict.fromkeys(headers)}
    _check_axes(given, form, side)
    problems: list[Problem] = []
    shapes: dict[Shape, Item] = {}
    for shape, item in given.items():
        try:
            shapes.setdefault(channels_first(through(chain, _last(shape), side.section, str(item))), item)
            check_equal(chain, _last(shape), side.section, side.batch_key, side.batch_size)
        except Refused as refused:
            problems += refused.problems
    if problems:
        raise Refused(list(dict.fromkeys(problems))[:NAMED])
    if len(shapes) > 1 and side.batch_size > 1:
        raise Refused([_differ(shapes, side)])
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


def _check_axes(given: dict[tuple[int, ...], Item], form: Form, side: Side) -> None:
    """Raises `Refused` where samples are of several ranks or numbers of channels, and where a mask has several."""
    (shape, item), *others = given.items()
    for other, its in others:
        if len(other) != len(shape) or other[0] != shape[0]:
            how = "of one rank" if len(other) != len(shape) else "of as many channels"
            what = f"shapes differ: {item} is {shape}, {its} is {other}"
            raise Refused([Problem(side.where, what, f"samples {how}, channels first")])
    if form.mask and shape[0] != 1:
        what = f"{item}: a mask has one channel, and its shape is {shape}, channels first"
        raise Refused([Problem(side.where, what, "", "give one integer a pixel or voxel, the class")])


def _differ(shapes: dict[Shape, Item], side: Side) -> Problem:
    (one, path), (other, other_path) = list(shapes.items())[:2]
    if len(one) == 3 and one[0] == other[0]:
        what = f"sizes differ: {path} gives {size_of(one[1:])}, {other_path} {size_of(other[1:])}"
        remedy = 'add a transform that makes them equal, as {"resize": [Sx, Sy]}, or set ' + f"{side.batch_key} to 1"
        return Problem(side.where, what, "samples of one size", remedy)
    what = f"shapes differ: {path} is {one}, {other_path} is {other}"
    return Problem(side.where, what, "samples of one shape", f"make them equal, or set {side.batch_key} to 1")


def through(chain: Chain, shape: Shape, section: str, path: str = "") -> Shape:
    """What `chain` makes of samples of `shape`, channels last. Raises `Refused`."""
    try:
        return chain.shape(shape)
    except DoesNotFit as error:
        what = f"{error}: {path}" if path else str(error)
        raise Refused([Problem(f"{section}.{error.path}", what, "", error.remedy)]) from None


def check_equal(chain: Chain, shape: Shape, section: str, batch_key: str, batch_size: int) -> None:
    """Refuses batches of samples whose sizes are drawn; `shape` has its channels last."""
    step = chain.unequal(shape) if batch_size > 1 else None
    if step is not None:
        what = f"gives each sample a size of its own, and a batch has {batch_size} samples"
        remedy = f'add {{"resize": [Sx, Sy]}} behind it, or set {batch_key} to 1'
        raise Refused([Problem(f"{section}.{step.key}", what, "samples of one size", remedy)])


def try_first(found: Found, form: Form, chain: Chain, side: Side) -> None:
    """Look at one sample; decode and transform it where a conversion may not take the type of the files. Raises
    `Refused`."""
    item = found.items[0]
    try:
        if not _colours(chain):
            if found.headers is None:
                refuse_failures(form.reader.measure(found.items[:1], form)[1], side.where)
            return
        array = form.read(item)
    except RunFailed as error:
        raise Refused([Problem(side.where, str(error))]) from None
    try_colours(array, item, chain, side)


def _colours(chain: Chain) -> list[Step]:
    """The steps that may not take the type of the samples."""
    return [step for step in chain.steps if not step.transform.on_masks and not step.transform.on_floats]


def try_colours(array: np.ndarray, item: Item, chain: Chain, side: Side) -> None:
    """Transform `array`, held and like the samples in `item`, where a step may not take them. Raises `Refused`."""
    colours = _colours(chain)
    if not colours:
        return
    import cv2

    try:
        chain.finish(chain.lead(array), None, {}, training=False)
    except cv2.error:
        what = f"does not take the samples as they are here: {array.shape[2]} channels of {array.dtype} in {item}"
        raise Refused([Problem(f"{side.section}.{colours[0].path}.convert_color", what)]) from None
    except DoesNotFit:
        return  # said with its size already


def _last(shape: Shape) -> Shape:
    return (*shape[1:], shape[0])
