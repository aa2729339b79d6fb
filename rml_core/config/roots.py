"""`RML_ROOTS`: the folders and URLs that everything a run reads or writes has to be in; not set: anywhere.

It is the machine's limit, not a run file's: whoever may set the environment of a process sets it, as `RML_MEMORY`, and
it holds for every path of a run in that process, whatever its key is called. `paths.resolve` asks here, and so does
whoever opens a file that was found in a folder: links and other files' names in a file lead anywhere.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from rml_core.config.problem import Problem, Refused, listed

VARIABLE = "RML_ROOTS"
REMEDY = "use a place in one of them, or ask whoever runs the worker to add this one to RML_ROOTS"
# A colon that stands between two roots, and neither in `s3://` nor before a port.
_BETWEEN = re.compile(rf"{re.escape(os.pathsep)}(?!//)(?![0-9]+(?:/|{re.escape(os.pathsep)}|$))")
# Protocols whose URLs name a host, and who asks there.
WITH_HOST = ("http", "https", "ftp", "sftp", "ssh", "smb", "webhdfs", "hdfs")
# As the kernel names an open file.
_DESCRIPTORS = Path("/proc/self/fd")
# Prepared samples that this process has opened: their folders.
_kept: set[str] = set()


@dataclass(frozen=True)
class Roots:
    """Folders without links, and URLs without a slash at the end."""

    folders: tuple[str, ...]
    urls: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return f"below {listed((*self.folders, *self.urls))} ({VARIABLE})"

    def has_file(self, path: str) -> bool:
        """Whether a path of this machine leads into a root, through all links, and with its `..` taken either way."""
        ways = {os.path.realpath(path), os.path.realpath(os.path.normpath(path))}
        return all(any(_is_below(way, root) for root in self.folders) for way in ways)

    def has_url(self, url: str) -> bool:
        """Whether a URL is below one of the roots, whatever a server makes of `..`, of `%2e` and of `\\`."""
        place = _place(url)
        return place is not None and any(_is_below(place, root) for root in self.urls)


def roots() -> Roots | None:
    """What the environment allows; None: everything.

    Raises:
        Refused: a root that is no absolute path and no URL, or none at all.
    """
    text = os.environ.get(VARIABLE)
    return None if text is None else _read(text)


@lru_cache(maxsize=16)
def _read(text: str) -> Roots:
    folders, urls = [], []
    problems = []
    for given in filter(None, (part.strip() for part in _BETWEEN.split(text))):
        if "://" in given:
            place = _place(given)
            if place is None:
                problems.append(Problem(VARIABLE, f'"{given}" has .. in it', "a URL that begins as those it allows do"))
            else:
                urls.append(place)
            continue
        folder = os.path.expanduser(given)
        if not os.path.isabs(folder):
            problems.append(
                Problem(VARIABLE, f'"{given}" is not an absolute path', "folders, as /data, and URLs, as s3://bucket")
            )
        else:
            folders.append(os.path.realpath(folder))
    if not problems and not folders and not urls:
        remedy = "name folders and URLs, or unset it to allow every place"
        problems.append(Problem(VARIABLE, "names no place: nothing could be read or written", remedy=remedy))
    if problems:
        raise Refused(problems)
    return Roots(tuple(folders), tuple(urls))


def problem_of_place(path: object, given: str = "", where: str = "") -> Problem | None:
    """Why a file or folder, as a path, as a `UPath` or as text, may not be touched; None: it may. `given`: how the
    user has written it. Raises `Refused` as `roots` does."""
    if (allowed := roots()) is None:
        return None
    text = str(path)
    is_url = not isinstance(path, Path) and "://" in text
    if allowed.has_url(text) if is_url else allowed.has_file(text):
        return None
    what = (
        f'"{given or text}"{_led(text, given or text, is_url, allowed)} is outside of what may be read and written here'
    )
    return Problem(where, what, allowed.allowed, REMEDY)


def _led(text: str, given: str, is_url: bool, allowed: Roots) -> str:
    """Where a path leads that does not say so itself. Where links outside of the roots lead is nobody's business."""
    plain = text if is_url else os.path.normpath(os.path.abspath(text))
    if not is_url and any(_is_below(plain, root) for root in allowed.folders):
        plain = os.path.realpath(text)
    return "" if plain == given else f" leads to {plain}, which"


def refuse(path: object, given: str = "", where: str = "") -> None:
    """Raises `Refused` where `problem_of_place` has one."""
    problem = problem_of_place(path, given, where)
    if problem is not None:
        raise Refused([problem])


def links_outside(folder: str, names: Iterable[str]) -> list[str]:
    """Those of the files `names` in `folder` that are links which lead out of the roots."""
    if (allowed := roots()) is None:
        return []
    return [
        name
        for name in names
        if os.path.islink(path := os.path.join(folder, name)) and not allowed.has_file(os.path.realpath(path))
    ]


def leaving(folder: str, top: str) -> list[str]:
    """The links in `folder`, and in the folders in it, that lead out of the roots, as paths below `top`."""
    if roots() is None:
        return []
    found, seen = [], set()
    for inner, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(inner)
        links = [] if real in seen else links_outside(inner, [*folders, *files])
        found += [os.path.relpath(os.path.join(inner, name), top) for name in links]
        folders[:] = [name for name in folders if real not in seen and name not in links]
        seen.add(real)
    return found


def kept(folder: Path | str) -> None:
    """Files in `folder`, which are rml's own and stand in no run file, may be opened; no path of a run may lead there
    for that."""
    _kept.add(os.path.realpath(folder))


def _may_open(path: str, allowed: Roots) -> bool:
    return allowed.has_file(path) or any(_is_below(os.path.realpath(path), folder) for folder in tuple(_kept))


def check(path: str) -> str:
    """`path`, of a file of this machine that is about to be opened. Raises `OSError` where it leads elsewhere by
    now."""
    if (allowed := roots()) is not None and not _may_open(path, allowed):
        raise _outside(path, allowed)
    return path


def check_open(descriptor: int, path: str) -> None:
    """Raises `OSError` where the open file is outside: no link can be changed between this look and the reading."""
    if (allowed := roots()) is None:
        return
    try:
        path = os.readlink(_DESCRIPTORS / str(descriptor))
    except OSError:
        # No such folder on this system: the name is looked at again.
        path = os.path.realpath(path)
    if not _may_open(path, allowed):
        raise _outside(path, allowed)


def opened(path: str) -> IO[bytes]:
    """A file of this machine open for reading. Raises `OSError`."""
    file = open(path, "rb")  # noqa: SIM115
    try:
        check_open(file.fileno(), path)
    except BaseException:
        file.close()
        raise
    return file


def start(path: str, count: int) -> bytes:
    """The first `count` bytes of a file of this machine, fewer where it ends. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        check_open(descriptor, path)
        return os.read(descriptor, count)
    finally:
        os.close(descriptor)


def name_of_open(file: IO[bytes], path: str) -> str:
    """A name under which libraries that take nothing but names open the very file that is open as `path`, and no other
    one that has come in its place."""
    name = _DESCRIPTORS / str(file.fileno())
    return str(name) if roots() is not None and name.exists() else path


def _outside(path: str, allowed: Roots) -> OSError:
    return PermissionError(errno.EACCES, f"it leads to {os.path.realpath(path)}, which is not {allowed.allowed}")


def _place(url: str) -> str | None:
    """Protocol, host and path of a URL, to be compared; None where it goes up, by anybody's reading."""
    plain = unquote(unquote(url))
    if ".." in re.split(r"[/\\?#;]", plain) or not plain.isprintable():
        return None
    parts = urlsplit(url)
    host = parts.netloc
    if parts.scheme in WITH_HOST:
        host = host.rpartition("@")[2].lower()
        if "\\" in parts.netloc:
            return None
    return f"{parts.scheme}://{host}{posixpath.normpath('/' + unquote(parts.path).lstrip('/'))}".rstrip("/")


def _is_below(place: str, root: str) -> bool:
    return place == root or place.startswith(root.rstrip("/") + "/")
