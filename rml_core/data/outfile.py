"""Whether what a network makes of slices can be assembled into one file, told from shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

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


def problems(
    data: Data, test: Survey, outputs: Sequence[Shape | None], base: AnyPath | str, where: str = WHERE
) -> Iterator[Problem]:
    """`outputs`: what the network makes of the slices of each set, channels first; None: that is said elsewhere."""
    if data.hdf5_outfile is None or not test.grids:
        return
    at = f"{where}.hdf5_outfile"
    path = text_of(resolve(data.hdf5_outfile, base))
    for item in {*test.inputs, *(test.targets or ())}:
        if item.file == path:
            yield Problem(at, f"{path} is read: slices are cut from it", "another file")
    for (name, shape, _), output in zip(test.parts, outputs, strict=True):
        if output is None:
            continue
        if output[1:] != shape[1:]:
            what = f"of slices {_said(shape)} of {name} the network makes {_said(output)}, channels first"
            remedy = "let the last layer give the size of the slices, or leave hdf5_outfile out"
            yield Problem(at, what, "a network that changes the channels alone", remedy)
    channels = max((output[0] or 0 for output in outputs if output is not None), default=0)
    if data.hdf5_output == "argmax" and channels > MOST_CLASSES:
        what = f"the network gives {channels} classes, and they are written as bytes"
        yield Problem(f"{where}.hdf5_output", what, f"at most {MOST_CLASSES} classes", 'or "hdf5_output": "values"')


def _said(shape: Shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
