"""Paths as the run file says them, and the files they mean: of this machine, or behind a URL that fsspec knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, get_args

from pydantic import AfterValidator, Field

from rml_core.config.names import wrong
from rml_core.config.problem import Problem, Refused, shown

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from upath import UPath

    AnyPath: TypeAlias = Path | UPath

# URLs that mean files of this machine.
LOCAL = ("file://", "local://")
READ_ONLY = ("http://", "https://")
WRITABLE = "a path of this machine, or a URL that takes files, as s3://bucket/name"
PATHS = "a path of this machine, or a URL, as s3://bucket/name or https://host/name"


def is_url(path: object) -> bool:
    """Whether `path`, as text or as `resolve` gives it, lies behind a URL and not on this machine."""
    if isinstance(path, Path):
        return False
    return not isinstance(path, str) or ("://" in path and not path.startswith(LOCAL))


def problem_of(path: str, where: str = "") -> Problem | None:
    """Why the URL `path` cannot be used here whatever lies behind it: a protocol that nobody knows, or whose package
    is not installed. None: it can, or it is none."""
    path = os.path.expandvars(path)
    if not is_url(path):
        return None
    import fsspec

    if "::" in path:
        return Problem(where, f"{shown(path)}: what lies inside another file is not read", PATHS, "unpack it")
    protocol = path.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        text = " ".join(str(error).split())
        what = f"{shown(path)}: the package that reads {protocol}:// is not installed"
        return Problem(where, what, remedy=text)
    except ValueError:
        return Problem(where, f"{shown(path)}: {protocol}:// is not known", PATHS)
    return None


def problem_of_writing(path: str, where: str = "") -> Problem | None:
    """Why nothing can be written below `path`: `problem_of`, or a web server, which gives files and takes none."""
    path = os.path.expandvars(path)
    if path.startswith(READ_ONLY):
        return Problem(where, f"{shown(path)}: nothing can be written to a web server", WRITABLE)
    return problem_of(path, where)


def problem_of_log(path: str, where: str = "") -> Problem | None:
    """Why lines cannot be added to the file `path` one after the other: it is behind a URL. None: they can."""
    if not is_url(os.path.expandvars(path)):
        return None
    what = f"{shown(path)} is behind a URL, which takes no lines one after the other"
    return Problem(where, what, "a path of this machine, as logs/out.txt")


def _usable(path: str) -> str:
    problem = problem_of(path)
    if problem is not None:
        raise wrong(problem.what, problem.allowed, problem.remedy)
    return path


def _writable(path: str) -> str:
    problem = problem_of_writing(path)
    if problem is not None:
        raise wrong(problem.what, problem.allowed, problem.remedy)
    return path


def _of_lines(path: str) -> str:
    problem = problem_of_log(path)
    if problem is not None:
        raise wrong(problem.what, problem.allowed)
    return path


# What is read; what is written as a whole; what is written a line at a time.
PathText = Annotated[str, Field(min_length=1), AfterValidator(_usable)]
FolderText = Annotated[str, Field(min_length=1), AfterValidator(_writable)]
LogText = Annotated[str, Field(min_length=1), AfterValidator(_of_lines)]


def is_path_field(field: FieldInfo) -> bool:
    """What stands in a model's field is a path."""
    told = (field.annotation, *get_args(field.annotation), Annotated[str, *field.metadata] if field.metadata else str)
    return any(kind in told for kind in (PathText, FolderText, LogText))


def resolve(path: str, base: AnyPath | str) -> AnyPath:
    """`path` with `~` and environment variables expanded; a relative one is against `base`, which may be a URL.

    Gives a `pathlib.Path`, or for a URL a `upath.UPath`, which has the same methods (`rml_core.config.remote` has what
    they lack). Raises `Refused` where a URL cannot be used (`problem_of`).
    """
    path = os.path.expandvars(os.path.expanduser(path))
    problem = problem_of(path, "")
    if problem is not None:
        raise Refused([problem])
    if is_url(path):
        return _behind(path)
    for prefix in LOCAL:
        path = path.removeprefix(prefix)
    if not is_url(base) or os.path.isabs(path):
        return Path(str(base), path)
    place = _behind(base) if isinstance(base, str) else base
    for part in path.split("/"):
        if part not in ("", "."):
            place = place.parent if part == ".." else place / part
    return place


def _behind(url: str) -> UPath:
    from upath import UPath

    return UPath(url)


def folder_of(file: AnyPath | str) -> AnyPath:
    """The folder that relative paths in `file` are against, without `..` and links. Raises `Refused` as `resolve`."""
    place = resolve(file, "") if isinstance(file, str) else file
    return place.absolute().parent.resolve() if isinstance(place, Path) else place.parent
