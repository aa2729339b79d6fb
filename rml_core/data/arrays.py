"""Arrays as samples, whatever file they lie in: which are taken, and how they are held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rml_core.config.problem import RunFailed, listed, nearest
from rml_core.data.files import Form, Header, Item, held
from rml_core.data.pairing import natural_order

if TYPE_CHECKING:
    import numpy as np

_NO_NUMBERS = {
    "O": "Python objects, which are never loaded: save plain numbers",
    "V": "records: save each field as an array of its own",
    "c": "complex numbers: save real and imaginary part as two channels",
    "M": "times: save numbers",
    "m": "times: save numbers",
}


def header_of(item: Item, shape: tuple[int, ...] | None, dtype: Any) -> Header:
    """Raises `RunFailed` naming `item` where a sample cannot be of that type and shape (None: there is no array)."""
    if dtype.kind not in "biuf":
        what = _NO_NUMBERS.get(dtype.kind, "text: save numbers")
        name = f" ({dtype})" if dtype.kind in "cUST" else ""
        what, colon, remedy = what.partition(":")
        raise RunFailed(f"{item}: holds {what}{name}{colon}{remedy}")
    if shape is None or 0 in shape:
        raise RunFailed(f"{item}: is empty" + (f": its shape is {shape}" if shape else ""))
    return Header(tuple(int(size) for size in shape), dtype.newbyteorder("=").name)


def as_sample(array: np.ndarray, item: Item, form: Form) -> np.ndarray:
    """`array`, as it lies in the file, as a sample is held: contiguous, in this machine's byte order. Raises
    `RunFailed` where it is no mask and should be one."""
    import numpy as np

    dtype = array.dtype.newbyteorder("=")
    array = array.astype(np.float64 if dtype.itemsize > 8 else dtype, copy=False)
    if form.add_channel:
        array = array[None]
    if form.mask:
        if array.shape[0] != 1:
            raise RunFailed(
                f"{item}: a mask has one channel, this one has {array.shape[0]}: its shape is {array.shape}"
            )
        array = integers(array, item)
    return np.ascontiguousarray(held(array))


def integers(array: np.ndarray, item: Item) -> np.ndarray:
    """The values of a mask in a type of at most 32 bits. Raises `RunFailed` where they are none."""
    import numpy as np

    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind in "iu" and (array.dtype.itemsize < 4 or array.dtype == np.int32):
        return array
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int32)
    if not np.array_equal(whole, array):
        what = "has fractions" if array.dtype.kind == "f" else "has values of more than 32 bits"
        raise RunFailed(f"{item}: a mask holds integers, this one {what}")
    return whole


def not_inside(file: str, inside: str, names: list[str]) -> RunFailed:
    """The error for a name that `file` does not have; `names`: those it has, of which the level is shown that the
    name leads to."""
    group, there = inside, natural_order(names)
    while group and not any(name.startswith(f"{group}/") for name in names):
        group = group.rpartition("/")[0]
    start = f"{group}/" if group else ""
    level = {start + name.removeprefix(start).partition("/")[0]: None for name in there if name.startswith(start)}
    there = list(level)
    shown = listed(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
    mean = nearest(inside, there)
    return RunFailed(
        f"{file}: has no {inside}" + (f": {mean}" if mean else "") + (f"; it has {shown}" if there else "")
    )


def reason(error: Exception) -> str:
    """What a library says of a file, in one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__
