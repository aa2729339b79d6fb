"""The formats of files with weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rml_core.checkpoints import content
from rml_core.checkpoints.content import Content
from rml_core.config.problem import Problem, Refused, listed

if TYPE_CHECKING:
    from torch import Tensor

    from rml_core.config.paths import AnyPath


@dataclass(frozen=True)
class Format:
    """`reader`: `module:function` of (path, where) to a mapping of names to tensors; None: recognised, not read."""

    name: str
    recognises: Callable[[Content], bool]
    reader: str | None = None


FORMATS = (
    Format("a PyTorch file", content.is_torch, "rml_core.checkpoints.torch_files:weights_of"),
    Format("a libtorch archive", content.is_libtorch),
    Format("a Keras HDF5 file", content.is_hdf5),
    Format("a Keras 3 archive", content.is_keras_3),
)


def format_of(path: AnyPath, where: str) -> Format:
    """The format of a file that can be read.

    Raises:
        Refused: there is no such file, or it is not whole, or none of the formats, or one that is not read yet.
    """
    inside = content.content_of(path, where)
    found = next((each for each in FORMATS if each.recognises(inside)), None)
    if found is None:
        name = content.name_in_pickle(path) if inside.head.startswith(content.PICKLE) else ""
        raise content.executes(path, where, name) if name else content.not_weights(path, where)
    if found.reader is None:
        readable = listed(each.name for each in FORMATS if each.reader is not None)
        raise Refused([Problem(where, f"{path} is {found.name}: reading it is not available yet", readable)])
    return found


def weights_of(path: Path, where: str) -> Mapping[str, Tensor]:
    """The weights in a file of any format: `<layer>.<weight>` to its values.

    Raises:
        Refused: as `format_of`, and where the file holds no weights.
    """
    reader = format_of(path, where).reader
    assert reader is not None
    module, function = reader.split(":")
    weights: Mapping[str, Tensor] = getattr(import_module(module), function)(path, where)
    return weights
