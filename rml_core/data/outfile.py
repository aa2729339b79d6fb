"""Whether what a network makes of slices can be assembled into one file, told from shapes."""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
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
    """The problem of an outfile that would take the place of what `survey` has found, whatever the run file calls
    it."""
    if data.hdf5_outfile is None:
        return
    path = resolve(data.hdf5_outfile, base)
    for item in dict.fromkeys((*survey.inputs, *(survey.targets or ()))):
        if _same(path, item.file):
            yield Problem(f"{where}.hdf5_outfile", f"{item.file} is read: slices are cut from it", "another file")
        elif _below(path, item.file):
            what = f"{text_of(path)} would lie in {item.file}, which is read: slices are cut from it"
            yield Problem(f"{where}.hdf5_outfile", what, "a place outside of it")


class Other(NamedTuple):
    """Files of a run that are not data: `path`, or those in the folder `path` whose whole names match `names`. `why`:
    what they are for, said behind the file's name."""

    path: AnyPath
    why: str
    names: str | None = None


def other_file(data: Data, base: AnyPath | str, others: Iterable[Other], where: str = WHERE) -> Iterator[Problem]:
    """The problem of an outfile that is one of `others`, too."""
    if data.hdf5_outfile is None:
        return
    path = resolve(data.hdf5_outfile, base)
    for other in others:
        within = other.names is not None
        if within and re.fullmatch(other.names or "", path.name) is None:
            continue
        if _same(path.parent if within else path, _said_whole(other.path)):
            named = other.path / path.name if within else other.path
            yield Problem(f"{where}.hdf5_outfile", f"{_said_whole(named)} {other.why}", "another file")


def no_place(data: Data, base: AnyPath | str, where: str = WHERE) -> Problem | None:
    """The problem of an outfile of this machine that cannot be written, told before anything is written."""
    path = resolve(data.hdf5_outfile, base) if data.hdf5_outfile is not None else None
    if not isinstance(path, Path):
        return None
    path = Path(os.path.normpath(path.absolute()))
    if path.is_dir():
        why = "is a directory"
    else:
        why = _refuses(next(parent for parent in path.parents if os.path.lexists(parent)))
    if not why:
        return None
    remedy = "choose another place, or make this one writable"
    return Problem(f"{where}.hdf5_outfile", f"{path} cannot be written: {why}", remedy=remedy)


def _refuses(folder: Path) -> str:
    """Why no file can be made in `folder`; "": one can."""
    if folder.is_file():
        return f"{folder} is a file"
    try:
        # Nobody sees it: it has no name, where file systems know such files, or none for longer than a moment.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _same(path: AnyPath, file: str) -> bool:
    if isinstance(path, Path):
        # Links, and names that differ in case where the file system does not, are the same file.
        same = os.path.normpath(path.absolute()) == file or os.path.realpath(path) == os.path.realpath(file)
        return same or (os.path.exists(path) and os.path.exists(file) and os.path.samefile(path, file))
    return _url(text_of(path)) == _url(file)


def _below(path: AnyPath, folder: str) -> bool:
    if isinstance(path, Path):
        inside = Path(os.path.realpath(path)).parents
        return os.path.isdir(folder) and Path(os.path.realpath(folder)) in inside
    return _url(text_of(path)).startswith(f"{_url(folder)}/")


def _said_whole(path: AnyPath) -> str:
    return os.path.normpath(path.absolute()) if isinstance(path, Path) else text_of(path)


def _url(path: str) -> str:
    protocol, mark, rest = path.rpartition("://")
    return protocol + mark + posixpath.normpath(rest)


def _said(shape: Shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
