"""Files behind URLs: what reading and listing them takes beyond what `upath.UPath` has.

Everything here takes what `paths.resolve` gives, or its text, and raises `OSError` alone, with one line in `strerror`:
the libraries behind fsspec have exceptions of their own each. Files of this machine are taken too.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote, unquote, urlsplit

from rml_core.config import roots
from rml_core.config.paths import is_url
from rml_core.config.problem import Refused, redacted

if TYPE_CHECKING:
    from upath import UPath

    from rml_core.config.paths import AnyPath

    File: TypeAlias = AnyPath | str

HTTP = ("http", "https")
# Where a file appears when it is whole, and renaming would copy it. Elsewhere it is renamed when it is whole.
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "r2", "oci", "hf")
# What servers and stores call the state of a file; its time of change comes last: it may be coarse.
STATES = ("ETag", "etag", "md5Hash", "Content-MD5", "Digest", "generation", "checksum", "uid")
TIMES = ("LastModified", "Last-Modified", "last_modified", "mtime", "modify", "updated", "created")
# Stands for the state of files of which a server says none: what was made from them is not used by another process.
UNKNOWN_STATE = uuid.uuid4().hex
# HTTP's words for it.
NOT_THERE = (404, 410)

_shared: dict[str, Any] = {}


def text_of(path: AnyPath) -> str:
    """The path as text that leads to the same file again (`UPath` leaves out the host and the user of ftp and sftp)."""
    text, options = str(path), getattr(path, "storage_options", {})
    host = options.get("host")
    if not host or text.startswith(HTTP) or f"//{host}" in text:
        return text
    user = ":".join(str(options[key]) for key in ("username", "password") if options.get(key))
    port = f":{options['port']}" if options.get("port") else ""
    protocol, _, rest = text.partition("://")
    return f"{protocol}://{user + '@' if user else ''}{host}{port}/{rest.lstrip('/')}"


def opened(path: File, block_size: int = 1 << 20) -> IO[bytes]:
    """`path` open for reading at any place of it, so many bytes a request at least. Raises `OSError`, as reading does.

    A web server that gives no parts of a file gives all of it, into a temporary file.
    """
    if not is_url(path):
        return roots.opened(str(path))
    with _as_os_error():
        files, inside = _files_at(path)
        if not is_http(path) or files.info(inside).get("partial"):
            return files.open(inside, "rb", block_size=block_size)
        whole = tempfile.TemporaryFile()  # noqa: SIM115
        files.get_file(inside, whole)
        whole.seek(0)
        return whole


class Ranges:
    """Parts of the file behind the URL `path`, asked for by several threads at once. Raises `OSError`, as `opened`
    does."""

    def __init__(self, path: str) -> None:
        self._whole: IO[bytes] | None = None
        with _as_os_error():
            self._files, self._inside = _files_at(path)
            in_parts = not is_http(path) or self._files.info(self._inside).get("partial")
        if not in_parts:
            self._whole = opened(path)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`, fewer where the file ends. Raises `OSError`."""
        if self._whole is not None:
            return os.pread(self._whole.fileno(), stop - start, start)
        with _as_os_error():
            return self._files.cat_file(self._inside, start=start, end=stop)

    def close(self) -> None:
        if self._whole is not None:
            self._whole.close()


def read_bytes(path: File) -> bytes:
    """The content of `path`. Raises `OSError`."""
    if not is_url(path):
        with roots.opened(str(path)) as file:
            return file.read()
    with _as_os_error():
        files, inside = _files_at(path)
        return files.cat_file(inside)


def kind(path: File) -> Literal["file", "folder"] | None:
    """What there is at `path`; None: nothing. Raises `OSError` where nobody answers."""
    if not is_url(path):
        local = Path(str(path))
        return "folder" if local.is_dir() else "file" if local.exists() else None
    try:
        with _as_os_error():
            files, inside = _files_at(path)
            found = files.info(inside)
            if is_http(path):
                # A page is what a web server has for a folder.
                return "folder" if found.get("mimetype") == "text/html" else "file"
            return "folder" if found["type"] == "directory" else "file"
    except FileNotFoundError:
        return None


def find(folder: File) -> list[str]:
    """The files below the URL `folder`, as names with `/`. Raises `OSError`.

    A web server lists a folder where it has a page of links for it.
    """
    with _as_os_error():
        files, inside = _files_at(folder)
        top = inside.rstrip("/") + "/"
        found = [path for path in _search(files, inside) if path.startswith(top)]
    names = [path[len(top) :] for path in found]
    return [unquote(name) for name in names if not re.search("[?#]", unquote(name))] if is_http(folder) else names


def below(folder: File, name: str) -> str:
    """The file `name` of `find` in `folder`, as text."""
    text = folder if isinstance(folder, str) else text_of(folder)
    # Behind a question mark stands what a server asks for, not a name.
    return f"{text.rstrip('/')}/{quote(name) if is_http(text) and '?' not in name else name}"


def name_of(file: AnyPath) -> str:
    """The name of a single file, as `find` would give it."""
    return unquote(file.name) if is_http(file) and "?" not in file.name else file.name


def identity(path: File) -> tuple[str, int, int | str]:
    """(path, size, state) of a file: as long as they are the same, so is its content. Raises `OSError`."""
    if not is_url(path):
        status = os.stat(str(path))
        return str(path), status.st_size, status.st_mtime_ns
    with _as_os_error():
        files, inside = _files_at(path)
        found = files.info(inside)
    state = next((f"{key} {found[key]}" for key in (*STATES, *TIMES) if found.get(key)), UNKNOWN_STATE)
    return path if isinstance(path, str) else text_of(path), found.get("size") or 0, state


@contextmanager
def fetched(path: AnyPath) -> Iterator[Path]:
    """`path` as a file of this machine, a copy that goes with the context where it lies behind a URL.

    Problems that are found in it name the URL. Raises `OSError` where it cannot be fetched.
    """
    if not is_url(path):
        yield Path(roots.check(str(path)))
        return
    folder = tempfile.mkdtemp(prefix=f"rml-{os.getpid()}-")
    try:
        local = Path(folder, path.name or "file")
        with opened(path) as source, local.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 22)
        try:
            yield local
        except Refused as refused:
            raise Refused(
                replace(problem, what=problem.what.replace(str(local), str(path))) for problem in refused.problems
            ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _search(files: Any, folder: str) -> list[str]:
    """The paths of all files below `folder`. fsspec's own search, which not every filesystem replaces by a better one,
    leaves out the folders that it cannot list."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    if files.async_impl and type(files)._find is not AsyncFileSystem._find:
        return files.find(folder)
    if not files.async_impl and type(files).find is not AbstractFileSystem.find:
        return files.find(folder)
    found, folders, seen = [], [folder], {folder.rstrip("/")}
    while folders:
        for entry in files.ls(folders.pop(), detail=True):
            name = entry["name"].rstrip("/")
            if entry["type"] != "directory":
                found.append(name)
            elif name not in seen and name.startswith(folder.rstrip("/")):
                seen.add(name)
                folders.append(entry["name"])
    return found


def names(folder: AnyPath) -> list[str]:
    """Names of what is in `folder`, none where it is not there. Raises `OSError`."""
    if isinstance(folder, Path):
        return os.listdir(folder) if folder.exists() else []
    try:
        with _as_os_error():
            files, inside = _files_at(folder)
            files.invalidate_cache(inside)
            return [path.rstrip("/").rpartition("/")[2] for path in files.ls(inside, detail=False)]
    except FileNotFoundError:
        return []


@contextmanager
def written(path: UPath) -> Iterator[Path]:
    """A place on this machine for a file that is put under `path`, whole, when the context ends well.

    Raises `OSError` where it cannot be put there; what `path` held before is then as it was.
    """
    folder = tempfile.mkdtemp(prefix=f"rml-{os.getpid()}-")
    try:
        local = Path(folder, path.name)
        yield local
        put(local, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(local: Path, path: UPath) -> None:
    """Copy a file of this machine to `path`, which holds what it held before until all of it is there. Raises
    `OSError`."""
    with _as_os_error():
        files, inside = _files_at(path)
        files.makedirs(files._parent(inside), exist_ok=True)
        if path.protocol in OBJECT_STORES:
            files.put_file(str(local), inside)
        else:
            _put_and_rename(files, str(local), inside)
        files.invalidate_cache(files._parent(inside))


def _put_and_rename(files: Any, local: str, inside: str) -> None:
    folder, _, name = inside.rpartition("/")
    unfinished = f"{folder}/.{name}.{uuid.uuid4().hex}"
    try:
        files.put_file(local, unfinished)
        files.mv(unfinished, inside)
    except BaseException:
        with suppress(Exception):
            files.rm_file(unfinished)
        raise


def remove(path: AnyPath) -> None:
    """No error where it is gone already. Raises `OSError`."""
    if isinstance(path, Path):
        path.unlink(missing_ok=True)
        return
    try:
        with _as_os_error():
            files, inside = _files_at(path)
            files.rm_file(inside)
            files.invalidate_cache(files._parent(inside))
    except OSError:
        # Of a file that is not there, each of them says something else.
        if kind(path) is not None:
            raise


def changed(path: AnyPath) -> float:
    """When `path` was last changed, in seconds since 1970; 0 where that is not said. Raises `OSError`."""
    if isinstance(path, Path):
        return path.stat().st_mtime
    with _as_os_error():
        files, inside = _files_at(path)
        found = files.info(inside)
    times = (found[key] for key in TIMES if found.get(key))
    return next((time.timestamp() for time in times if isinstance(time, datetime)), 0.0)


def is_http(path: File) -> bool:
    """Whether a web server has it: no store of folders and files, but of pages."""
    return str(path).partition("://")[0] in HTTP


def _files_at(path: File) -> tuple[Any, str]:
    """(fsspec filesystem, path in it). One filesystem serves all threads where it is made for that, which fsspec's own
    cache does not know: it has one a thread."""
    from upath import UPath

    place = UPath(path)
    if isinstance(path, str):
        parts = urlsplit(path)
        key = f"{parts.scheme}://{parts.netloc}"
        if key not in _shared and place.fs.async_impl:
            _shared[key] = place.fs
        if key in _shared:
            return _shared[key], place.path
    return place.fs, place.path


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # fsspec's HTTP says of everything that there is no such file, and knows better.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
        if isinstance(cause, Exception) and not isinstance(cause, KeyError):
            error = error if getattr(cause, "status", None) in NOT_THERE else cause
        # And of its FTP a search comes to its end.
        if isinstance(error, FileNotFoundError | StopIteration):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
        # Whoever gives an exception words of its own means them to be read.
        said = error.strerror if isinstance(error, OSError) and type(error).__str__ is OSError.__str__ else ""
        text = " ".join((said or str(error) or type(error).__name__).split())
        # Where it is logged, all that led to it is, with the URLs that a library was given.
        why = error if redacted(f"{error} {error.__cause__} {error.__context__}").find("***") < 0 else None
        raise OSError(getattr(error, "errno", None) or 0, redacted(text)) from why
