"""Arrays laid out as other programs have them: all samples in one, or channels last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from rml_core.config.problem import Problem
from rml_core.data.files import Form, Found, Item

Lengths = tuple[int, ...]
Fits = Callable[[Lengths], bool]

# Pictures have so many channels at most.
COLOURS = 4
# So many different shapes are looked at.
LOOKED_AT = 4


def problem(found: Found, form: Form, where: str, fits: Fits) -> Problem | None:
    """What is wrong with inputs that the network does not take, where they would fit in another layout.

    `fits`: whether the network takes a sample of a shape, as it lies in the file.
    """
    headers: dict[Lengths, Item] = {}
    for header, item in zip(found.headers or (), found.items, strict=False):
        headers.setdefault(header.shape, item)
    for shape, item in islice(headers.items(), LOOKED_AT):
        if fits(shape):
            continue
        if any(map(fits, _moved(shape))) or _is_picture(shape):
            return _last(shape, item, where)
        # A few in front are channels that the network does not have.
        if len(shape) < 2 or shape[0] <= COLOURS or not any(map(fits, (shape[1:], *_moved(shape[1:])))):
            continue
        what = f"an array is one sample, and {item} of shape {shape} looks like {shape[0]} of them"
        remedy = form.reader.one_each
        if not fits(shape[1:]):
            what, remedy = f"{what}, channels last", f"x = np.moveaxis(x, -1, 1); {remedy}"
        return Problem(where, what, "", f"write each by itself, and its target too: {remedy}")
    return None


def volume_problem(
    shape: Lengths, item: Item, sizes: Sequence[int], where: str, fits: Callable[[int], bool]
) -> Problem | None:
    """What is wrong with an array of `shape`, to be cut into slices of `sizes`, that looks channels last.

    `fits`: whether the network takes slices of so many channels.
    """
    if len(shape) != len(sizes) + 1 or shape[0] == shape[-1] or not fits(shape[-1]):
        return None
    few = shape[-1] <= COLOURS < min(shape[:-1]) and shape[-1] < sizes[-1]
    return _last(shape, item, where) if few or not fits(shape[0]) else None


def too_few_sizes(shape: Lengths, item: Item, sizes: Sequence[int], first: int, where: str) -> Problem:
    """That the first axis of an array counts as channels, which the slicers have no number for. `first`: one that could
    stand there."""
    what = f"{list(sizes)} has {len(sizes)} {'number' if len(sizes) == 1 else 'numbers'}, and {item} has {len(shape)}"
    what = f"{what} axes, {shape}: the first counts as {shape[0]} channels"
    return Problem(where, what, "", f"write {len(shape)} numbers, as {[first, *sizes]}")


def _last(shape: Lengths, item: Item, where: str) -> Problem:
    what = f"arrays are channels first, and {item} of shape {shape} looks channels last"
    return Problem(where, what, "", "put the channels first: np.moveaxis(x, -1, 0)")


def _moved(shape: Lengths) -> Iterable[Lengths]:
    """`shape` with its last axis first, where that makes it another."""
    if len(shape) > 1 and shape[-1] != shape[0]:
        yield (shape[-1], *shape[:-1])


def _is_picture(shape: Lengths) -> bool:
    return len(shape) == 3 and shape[-1] in (1, 3, COLOURS) and min(shape[:-1]) > COLOURS
