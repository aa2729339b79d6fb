"""The IDX files of MNIST and its kin, plain or gzipped: images N x H x W of bytes, and labels N of bytes.

Format: http://yann.lecun.com/exdb/mnist/
"""

from __future__ import annotations

import gzip
import math
import os
import re
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from rml_core.config import remote, roots
from rml_core.config.paths import is_url
from rml_core.config.problem import Problem, Refused, RunFailed, listed
from rml_core.data.files import Form, Found, Header, Item, Reader, Role, absolute, in_threads
from rml_core.data.pairing import find_files, split_inside

if TYPE_CHECKING:
    import numpy as np

    from rml_core.config.paths import AnyPath

# Two zeros, the type (8: bytes), the number of axes.
MAGIC = {b"\0\0\x08\x03": "images", b"\0\0\x08\x01": "labels"}
GZIP = b"\x1f\x8b"
# Words by which a file's name tells its role.
ROLES: dict[Role, tuple[str, ...]] = {"training": ("train",), "test": ("t10k", "test")}
# Unpacked files that are kept.
KEPT = 2

_kept: OrderedDict[object, np.ndarray] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class Idx:
    """The header of a file. `kind`: images or labels."""

    file: str
    name: str
    kind: str
    shape: tuple[int, ...]

    def is_of(self, role: Role) -> bool | None:
        """None: the name does not tell."""
        named = {each for each, words in ROLES.items() if any(word in self.name.casefold() for word in words)}
        return role in named if named else None


class Mnist(Reader):
    what: ClassVar[str] = "MNIST files"

    def counts(self, name: str) -> bool:
        return True

    def channels(self, form: Form) -> int | None:
        return 1

    def shape(self, header: Header, form: Form) -> tuple[int, ...]:
        return header.shape

    def find(
        self, path: str, base: AnyPath | str, where: str, role: Role, as_target: bool, volumes: bool = False
    ) -> Found:
        folder, found, single = _look(path, base, where)
        if single and found[0].kind == "labels" and not as_target:
            what = f"{found[0].file} has labels, and inputs are images"
            raise Refused([Problem(where, what, "", "name the file with the images: are the two swapped?")])
        if single:
            return _samples(folder, found[0], where, single)
        return _samples(folder, _of_role(folder, found, "labels" if as_target else "images", role, where), where)

    def beside(self, path: str, base: AnyPath | str, where: str, role: Role) -> Found | None:
        """The labels of the images at `path`; None: there are none. Raises `Refused` where they are not clear."""
        folder, found, single = _look(path, base, where)
        if single:
            wanted = _stem(found[0].name).replace("images", "labels").replace("idx3", "idx1")
            folder, found, _ = _look(str(folder), base, where)
            labels = [idx for idx in found if idx.kind == "labels" and _stem(idx.name) == wanted]
        else:
            labels = [idx for idx in found if idx.kind == "labels" and idx.is_of(role) is not False]
            if labels:
                labels = [_of_role(folder, labels, "labels", role, where)]
        return _samples(folder, labels[0], where) if labels else None

    def read(self, item: Item, form: Form) -> np.ndarray:
        return _pixels(item.file)[int(item.inside)][:, :, None]


def _look(path: str, base: AnyPath | str, where: str) -> tuple[AnyPath, list[Idx], bool]:
    """(folder, the IDX files of it, or the one that is named; whether one is named). Raises `Refused`."""
    place, _ = split_inside(path, base)
    folder, names = find_files(place, where, lambda name: True, "MNIST files")
    single = folder != place
    files = list(zip(names, absolute(folder, names), strict=True))

    def look(file: tuple[str, str]) -> list[Idx]:
        return _headers(*file, single)

    headers, failures = in_threads(look, files)
    if failures:
        raise Refused(Problem(where, failure) for failure in failures)
    found = {idx.name: idx for each in headers for idx in each or ()}
    # Unpacked beside the packed one: the same file twice.
    found = {name: idx for name, idx in found.items() if name.removesuffix(".gz") == name or name[:-3] not in found}
    if not found:
        what = f"{folder} has no MNIST files"
        raise Refused([Problem(where, what, "", "name the folder with train-images-idx3-ubyte and its kin")])
    return folder, list(found.values()), single


def _of_role(folder: AnyPath, found: list[Idx], kind: str, role: Role, where: str) -> Idx:
    of_kind = [idx for idx in found if idx.kind == kind]
    chosen = [idx for idx in of_kind if idx.is_of(role)] or [idx for idx in of_kind if idx.is_of(role) is None]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        what = f"{folder} has several files with {kind}: {listed(idx.name for idx in chosen)}"
        raise Refused([Problem(where, what, "", "name the one that is meant")])
    words = " or ".join(f'"{word}"' for word in ROLES[role])
    what = f"{folder} has no file with {role} {kind}, only {listed(idx.name for idx in found)}"
    raise Refused([Problem(where, what, "", f"name the file, or give it a name with {words} in it")])


def _headers(name: str, file: str, single: bool) -> list[Idx]:
    """The header; none where the file is no IDX file, which only a file that was named is blamed for. Raises
    `RunFailed`."""
    try:
        with remote.opened(file) as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            start = stream.read(2)
            stream.seek(0)
            if start == GZIP:
                with gzip.GzipFile(fileobj=stream) as unpacked:
                    head = unpacked.read(16)
                stream.seek(max(size - 4, 0))
                # RFC 1952, 2.3.1: the last four bytes are the length of what is packed.
                size = int.from_bytes(stream.read(4), "little")
            else:
                head = stream.read(16)
    except (OSError, EOFError, zlib.error) as error:
        if not single:
            return []
        said = getattr(error, "strerror", None) or str(error)
        raise RunFailed(f"{file}: cannot be read: {said}") from None
    kind = MAGIC.get(head[:4])
    if kind is None:
        if not single:
            return []
        begins = ", ".join(f"{what} with {magic.hex()}" for magic, what in MAGIC.items())
        raise RunFailed(f"{file}: is no MNIST file: it begins with {head[:4].hex()}, {begins}")
    axes = head[3]
    shape = tuple(int.from_bytes(head[at : at + 4], "big") for at in range(4, 4 + 4 * axes, 4))
    whole = 4 + 4 * axes + math.prod(shape)
    if len(head) < 4 + 4 * axes or size != whole:
        said = " x ".join(str(length) for length in shape)
        raise RunFailed(f"{file}: is damaged: its header says {said} {kind}, {whole} bytes, and there are {size}")
    if 0 in shape:
        raise RunFailed(f"{file}: has no {kind}")
    return [Idx(file, name, kind, shape)]


def _samples(folder: AnyPath, idx: Idx, where: str, single: bool = False) -> Found:
    count, *size = idx.shape
    items = tuple(Item(idx.file, f"{number:05d}") for number in range(count))
    # A sample's number is its whole name.
    files = ("",) * count
    if idx.kind == "images":
        return Found(folder, files, items, True, (Header((1, *size), "uint8"),) * count)
    try:
        labels = _content(idx.file, 8, idx.shape)
    except RunFailed as failed:
        raise Refused([Problem(where, str(failed))]) from None
    classes = tuple(str(number) for number in range(int(labels.max()) + 1))
    return Found(folder, files, items, True, labels=tuple(labels.tolist()), classes=classes)


def _pixels(file: str) -> np.ndarray:
    """(N, H, W): mapped where the file lies here unpacked; else read once, and kept for the next ones."""
    with _lock:
        key = remote.identity(file)
        if key not in _kept:
            shape = _shape(file)
            _kept[key] = _content(file, 16, shape).reshape(shape)
            while len(_kept) > KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return _kept[key]


def _shape(file: str) -> tuple[int, ...]:
    return _headers(file, file, single=True)[0].shape


def _content(file: str, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes behind the header, those of `shape`. Raises `RunFailed`."""
    import numpy as np

    try:
        with remote.opened(file) as stream:
            packed = stream.read(2) == GZIP
        if not packed and not is_url(file):
            with roots.opened(file) as stream:
                return np.memmap(stream, np.uint8, "r", offset)
        if not packed:
            return np.frombuffer(remote.read_bytes(file), np.uint8, offset=offset)
        # A few bytes can be packed that unpack to any number of them: as many are taken as the header says.
        whole = offset + math.prod(shape)
        with remote.opened(file) as stream, gzip.GzipFile(fileobj=stream) as unpacked:
            data = unpacked.read(whole + 1)
        if len(data) != whole:
            there = "more" if len(data) > whole else len(data)
            raise RunFailed(f"{file}: is damaged: its header says {whole} bytes, and there are {there}")
        return np.frombuffer(data, np.uint8, offset=offset)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise RunFailed(f"{file}: cannot be read: {said}") from None


def _stem(name: str) -> str:
    return re.sub(r"(\.gz)?$", "", PurePosixPath(name).name, count=1).removesuffix(".gz")


READER = Mnist()
