"""Paths as the run file says them, and the files they mean: of this machine, or behind a URL that fsspec knows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args

from pydantic import AfterValidator, Field, ValidationInfo

from rml_core.config import roots
from rml_core.config.names import wrong
from rml_core.config.problem import Problem, Refused, shown
from rml_core.config.trust import expanded, reading_of

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
    return _unusable(expanded(path), where)


def _unusable(path: str, where: str = "") -> Problem | None:
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
    path = expanded(path)
    if path.startswith(READ_ONLY):
        return Problem(where, f"{shown(path)}: nothing can be written to a web server", WRITABLE)
    return problem_of(path, where)


def problem_of_log(path: str, where: str = "") -> Problem | None:
    """Why lines cannot be added to the file `path` one after the other: it is behind a URL. None: they can."""
    if not is_url(expanded(path)):
        return None
    what = f"{shown(path)} is behind a URL, which takes no lines one after the other"
    return Problem(where, what, "a path of this machine, as logs/out.txt")


class _Taken:
    """A validator of paths: what is wrong with one by itself (`problem_of`), with where it is from, and with where it
    leads."""

    def __init__(self, problem_of: Callable[[str], Problem | None]) -> None:
        self._problem_of = problem_of

    def __call__(self, path: str, info: ValidationInfo) -> str:
        reading = reading_of(info.context)
        problem = reading.problem(path) or self._problem_of(path)
        if problem is None and reading.base is not None:
            problem = _outside(path, reading.base)
        if problem is not None:
            raise wrong(problem.what, problem.allowed, problem.remedy)
        return path


# What is read; what is written as a whole; what is written a line at a time. Every path of a run file is one of them.
PathText = Annotated[str, Field(min_length=1), AfterValidator(_Taken(problem_of))]
FolderText = Annotated[str, Field(min_length=1), AfterValidator(_Taken(problem_of_writing))]
LogText = Annotated[str, Field(min_length=1), AfterValidator(_Taken(problem_of_log))]


def is_path_field(field: FieldInfo) -> bool:
    """What stands in a model's field is a path."""
    told = (field.annotation, *get_args(field.annotation), Annotated[str, *field.metadata] if field.metadata else str)
    return any(kind in told for kind in (PathText, FolderText, LogText))


def _if_text(value: Any, info: ValidationInfo) -> Any:
    return _Taken(problem_of)(value, info) if isinstance(value, str) else value


# What may be written out, and is a path where it is text.
PathOrContent = Annotated[Any, AfterValidator(_if_text)]


def _outside(path: str, base: AnyPath | str) -> Problem | None:
    try:
        resolve(path, base)
    except Refused as refused:
        return refused.problems[0]
    return None


def resolve(path: str, base: AnyPath | str) -> AnyPath:
    """`path` with `~` and environment variables expanded, as far as they do (`trust.expanded`); a relative one is
    against `base`, which may be a URL.

    Gives a `pathlib.Path`, or for a URL a `upath.UPath`, which has the same methods (`rml_core.config.remote` has what
    they lack). Raises `Refused` where a URL cannot be used (`problem_of`), and where the place is outside of
    `roots.VARIABLE`.
    """
    given, path = path, expanded(path)
    problem = _unusable(path)
    if problem is not None:
        raise Refused([problem])
    if is_url(path):
        roots.refuse(path, given)
        return _behind(path)
    for prefix in LOCAL:
        path = path.removeprefix(prefix)
    if not is_url(base) or os.path.isabs(path):
        file = Path(str(base), path)
        roots.refuse(file, given)
        return file
    place = _behind(base) if isinstance(base, str) else base
    for part in path.split("/"):
        if part not in ("", "."):
            place = place.parent if part == ".." else place / part
    if roots.roots() is not None:
        from rml_core.config.remote import text_of

        roots.refuse(text_of(place), given)
    return place


def _behind(url: str) -> UPath:
    from upath import UPath

    return UPath(url)


def folder_of(file: AnyPath | str) -> AnyPath:
    """The folder that relative paths in `file` are against, without `..` and links. Raises `Refused` as `resolve`."""
    place = resolve(file, "") if isinstance(file, str) else file
    return place.absolute().parent.resolve() if isinstance(place, Path) else place.parent
