"""Which class each raw value of a mask stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from rml_core.config.problem import RunFailed, listed
from rml_core.config.target import IGNORED
from rml_core.transforms.section import FILLED

if TYPE_CHECKING:
    import numpy as np

# Raw values in the order of their classes; None: each value is its class.
Mapped = tuple[int, ...] | None

# What targets of pixels or voxels are called, and those of whole samples.
MASKS, CLASS_TARGETS = "masks", "class targets"


def mapping(
    values: Mapping[int, str] | Iterable[int], outputs: int, ignore_index: int | None = None, what: str = MASKS
) -> Mapped:
    """Which values stand for the classes 0 .. C-1, from the distinct raw values of the training masks. C: the network's
    `outputs`, or 2 where it has one.

    Values that all lie in 0 .. C-1, but for `ignore_index`, stay (None); others are mapped in sorted order.
    `values` may say for each value a file that has it. `what`: what the targets are called. Raises `RunFailed` where
    there are more values than classes.
    """
    classes = max(outputs, 2)
    distinct = sorted(set(values) - {ignore_index})
    if all(0 <= value < classes for value in distinct):
        return None
    if len(distinct) > classes:
        has = f"{outputs} outputs" if outputs > 1 else "one output, which tells two classes apart"
        raise RunFailed(
            f"the {what} have {len(distinct)} distinct values ({_some(distinct)}), the network has {has}"
            + _first_file(values, distinct[classes])
            + f"; give it an output for each value, or mend the {what}"
            + (_of_pixels(values) if what == MASKS else "")
        )
    return tuple(distinct)


class UnknownValue(RunFailed):
    """A value of the masks stands for none of the classes that were learned."""


def check_known(
    values: Mapping[int, str], mapped: Mapped, outputs: int, ignore_index: int | None = None, what: str = MASKS
) -> None:
    """Raises `UnknownValue` where a value of the test masks (value -> a file that has it) stands for no class."""
    classes = max(outputs, 2)
    known = range(classes) if mapped is None else mapped
    unseen = sorted(set(values) - set(known) - {ignore_index})
    if unseen:
        raise UnknownValue(
            f"{values[unseen[0]]}: value {unseen[0]} stands for no class: "
            + (f"training {what} have {_some(known)}" if mapped is not None else f"classes are 0 to {classes - 1}")
            + (f"; nor do {_some(unseen[1:])}" if unseen[1:] else "")
            + f"; mend it, or train on {what} that have this value"
        )


def to_classes(raw: np.ndarray, mapped: Mapped, ignore_index: int | None = None) -> np.ndarray:
    """Raw values (..., any integers) as class indices, int64; `ignore_index` and filled pixels become `IGNORED`, and so
    do values that stand for no class where there is a mapping."""
    if raw.dtype.itemsize > 2:
        return _looked_up(raw, mapped, ignore_index)
    table = _table(raw.dtype.str, mapped, ignore_index)
    # Of signed types the table has the negative values at its end, where a negative index finds them.
    return table[raw]


@lru_cache(maxsize=8)
def _table(dtype: str, mapped: Mapped, ignore_index: int | None) -> np.ndarray:
    """The class of every value of an 8 or 16 bit type, at the value's own index."""
    import numpy as np

    limits = np.iinfo(dtype)
    values = [*range(limits.max + 1), *range(limits.min, 0)]
    return _looked_up(np.array(values, dtype), mapped, ignore_index)


def _looked_up(raw: np.ndarray, mapped: Mapped, ignore_index: int | None) -> np.ndarray:
    import numpy as np

    if mapped is None:
        classes = raw.astype(np.int64)
    else:
        order = np.asarray(mapped, np.int64)
        place = np.minimum(np.searchsorted(order, raw), len(order) - 1)
        classes = np.where(order[place] == raw, place, IGNORED)
    if ignore_index is not None:
        classes[raw == ignore_index] = IGNORED
    if raw.dtype.kind == "i":
        classes[raw == FILLED] = IGNORED
    return classes


def _of_pixels(values: Mapping[int, str] | Iterable[int]) -> str:
    """Where values of masks may come from that are no classes."""
    files = values.values() if isinstance(values, Mapping) else ()
    if any(file.casefold().endswith((".jpg", ".jpeg")) for file in files):
        return " (JPEG makes values of its own: use PNG)"
    return "; if the values number objects, make them 0 and 1 first"


def _first_file(values: Mapping[int, str] | Iterable[int], value: int) -> str:
    return f"; {value} is in {values[value]}" if isinstance(values, Mapping) else ""


def _some(values: Iterable[int], limit: int = 10) -> str:
    texts = [str(value) for value in values]
    return listed(texts[:limit]) + (", ..." if len(texts) > limit else "")
