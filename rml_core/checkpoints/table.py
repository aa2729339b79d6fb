"""The formats of files with weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rml_core.checkpoints import content
from rml_core.checkpoints.content import Content
from rml_core.checkpoints.stored import Stored
from rml_core.config.problem import Problem, Refused

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath


@dataclass(frozen=True)
class Format:
    """`reader`: `module:function` of (path, where) to what the file holds; `names_alone`: and, third, of what reads a
    weight, so that names can be had without values, and without torch."""

    name: str
    recognises: Callable[[Content], bool]
    reader: str
    names_alone: bool = False


FORMATS = (
    Format("a PyTorch file", content.is_torch, "rml_core.checkpoints.torch_files:read"),
    Format("a libtorch archive", content.is_libtorch, "rml_core.checkpoints.libtorch:read"),
    Format("a Keras HDF5 file (`.h5`)", content.is_keras_h5, "rml_core.checkpoints.keras_h5:read", True),
    Format("Keras 3 weights (`.weights.h5`)", content.is_keras_3_weights, "rml_core.checkpoints.keras_v3:read", True),
    Format("a Keras 3 archive (`.keras`)", content.is_keras_3, "rml_core.checkpoints.keras_v3:read_archive", True),
)


def format_of(path: AnyPath, where: str) -> Format:
    """The format of a file that can be read.

    Raises:
        Refused: there is no such file, or it is not whole, or none of the formats.
    """
    inside = content.content_of(path, where)
    found = next((each for each in FORMATS if each.recognises(inside)), None)
    if found is not None:
        return found
    name = content.name_in_pickle(path) if inside.head.startswith(content.PICKLE) else ""
    if name:
        raise content.executes(path, where, name)
    if content.is_hdf5(inside):
        raise content.without_weights(path, where, inside)
    tensorflow = content.of_tensorflow(path, where)
    raise Refused([tensorflow]) if tensorflow else content.not_weights(path, where)


def read(path: Path, where: str) -> Stored:
    """The weights in a file of any format.

    Raises:
        Refused: as `format_of`, and where the file holds no weights.
    """
    stored: Stored = _reader(format_of(path, where))(path, where)
    if not stored.held:
        raise Refused([Problem(where, f"{path} holds no weights: none of its layers has any")])
    return stored


def names(path: Path, where: str) -> Stored | None:
    """As `read`, without the weights' values; None for formats that have to be read for their names.

    Raises:
        Refused: as `read`.
    """
    from rml_core.checkpoints.hdf5 import name_only

    found = format_of(path, where)
    return _reader(found)(path, where, name_only) if found.names_alone else None


def _reader(found: Format) -> Callable[..., Stored]:
    module, function = found.reader.split(":")
    reader: Callable[..., Stored] = getattr(import_module(module), function)
    return reader
