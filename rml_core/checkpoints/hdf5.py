"""HDF5 files that others wrote: what fails in them has a clear word, and nothing is read from another file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from rml_core.checkpoints.content import cut_short, damaged
from rml_core.config.problem import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from rml_core.config.paths import AnyPath


# Of a group and the name of a dataset in it.
Value = Callable[[Any, str], Any]


@contextmanager
def hdf5(source: IO[bytes], path: AnyPath, where: str) -> Iterator[Any]:
    """`source`, the content of `path`, as an `h5py.File`.

    Raises:
        Refused: it is cut short or damaged, also where that shows only while it is read.
    """
    import h5py

    try:
        with h5py.File(source, "r") as file:
            yield file
    except Refused:
        raise
    except Exception as error:
        # h5py raises what HDF5 stumbles over: OSError, KeyError, RuntimeError, ValueError, TypeError.
        raise (cut_short if "truncated file" in str(error) else damaged)(path, where) from None


def texts(group: Any, name: str) -> list[str]:
    """A list of names in the attribute `name`, or in `name0`, `name1`, ... where it is longer than HDF5 allows."""
    found = [group.attrs[name]] if name in group.attrs else []
    while not found or f"{name}{len(found)}" in group.attrs:
        part = f"{name}{len(found)}"
        if part not in group.attrs:
            break
        found.append(group.attrs[part])
    return [text(each) for part in found for each in part]


def text(value: Any) -> str:
    """Attributes are bytes or text, as the version of h5py that wrote them had it."""
    return value.decode() if isinstance(value, bytes) else str(value)


def name_only(group: Any, name: str) -> Any:
    """In the place of `tensor` where only names are wanted."""
    return None


def tensor(group: Any, name: str) -> Tensor:
    """The dataset `name` of `group`. Raises whatever h5py does, and `ValueError` where its numbers lie elsewhere."""
    import numpy as np
    import torch

    dataset = group[name]
    if dataset.file.id != group.file.id or dataset.is_virtual or dataset.external:
        raise ValueError(f"{name} is in another file")
    values = dataset[()]
    if text(dataset.attrs.get("dtype", "")) == "bfloat16":
        # HDF5 has no such type: two bytes without a meaning.
        return torch.from_numpy(np.asarray(values).view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.asarray(values))
