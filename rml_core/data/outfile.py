"""Whether what a network makes of slices can be assembled into one file, told from shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from rml_core.config.paths import resolve
from rml_core.config.problem import Problem
from rml_core.config.remote import text_of
from rml_core.data.files import Shape
from rml_core.data.section import Data
from rml_core.data.survey import WHERE, Survey

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

# Classes are bytes, and 255 stands for none.
MOST_CLASSES = 255


class Made(NamedTuple):
    """The slices of a set, and what the network makes of them: shapes, channels first. `padded`: the keys with which
    slices keep their size; None: nobody knows any."""

    name: str
    shape: Shape
    output: Shape
    padded: str | None = None


def problems(data: Data, parts: Iterable[Made], where: str = WHERE) -> Iterator[Problem]:
    """`parts`: what the network makes of each slice set."""
    if data.hdf5_outfile is None:
        return
    parts = list(parts)
    for part in parts:
        if part.output[1:] != part.shape[1:]:
            what = f"of slices {_said(part.shape)} of {part.name} the network makes {_said(part.output)}"
            way_out = f"set {part.padded}" if part.padded else "let the last layer give the size of the slices"
            remedy = f"{way_out}, or leave hdf5_outfile out"
            allowed = "a network that changes the channels alone"
            yield Problem(f"{where}.hdf5_outfile", f"{what}, channels first", allowed, remedy)
    channels = max((part.output[0] or 0 for part in parts), default=0)
    if data.hdf5_output == "argmax" and channels > MOST_CLASSES:
        what = f"the network gives {channels} classes, and they are written as bytes"
        yield Problem(f"{where}.hdf5_output", what, f"at most {MOST_CLASSES} classes", 'or "hdf5_output": "values"')


def read_too(data: Data, survey: Survey, base: AnyPath | str, where: str = WHERE) -> Iterator[Problem]:
    """The problem of an outfile that would take the place of what `survey` has found."""
    if data.hdf5_outfile is None:
        return
    path = text_of(resolve(data.hdf5_outfile, base))
    for item in {*survey.inputs, *(survey.targets or ())}:
        if item.file == path:
            yield Problem(f"{where}.hdf5_outfile", f"{path} is read: slices are cut from it", "another file")


def _said(shape: Shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
