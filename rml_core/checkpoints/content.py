"""What a file with weights is, told from its first bytes and its list of members, never from its name."""

from __future__ import annotations

import os
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rml_core.config import remote
from rml_core.config.problem import Problem, Refused

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

ZIP = b"PK\x03\x04"
HDF5 = b"\x89HDF\r\n\x1a\n"
# What torch.save wrote before 1.6 begins with: the pickled number 0x1950a86a20f9469cfc6c.
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
PICKLE = b"\x80"


@dataclass(frozen=True)
class Content:
    """`head`: the first bytes. `members`: names in a zip archive, as they are and below their first folder: torch
    puts all of its own into one."""

    head: bytes
    members: frozenset[str] = frozenset()


def is_libtorch(content: Content) -> bool:
    return "constants.pkl" in content.members


def is_torch(content: Content) -> bool:
    return content.head.startswith(LEGACY) or ("data.pkl" in content.members and not is_libtorch(content))


def is_keras_3(content: Content) -> bool:
    return "config.json" in content.members and "model.weights.h5" in content.members


def is_hdf5(content: Content) -> bool:
    return content.head.startswith(HDF5)


def content_of(path: AnyPath, where: str) -> Content:
    """Look into `path`.

    Raises:
        Refused: there is no such file, or it ends too early to be what it begins as.
    """
    try:
        with remote.opened(path) as file:
            head = file.read(len(LEGACY))
            if not head.startswith(ZIP):
                if any(len(head) < len(whole) and whole.startswith(head) for whole in (ZIP, LEGACY)):
                    raise cut_short(path, where)
                return Content(head)
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
                return Content(head, frozenset(names) | {name.partition("/")[2] for name in names})
    except OSError as error:
        raise Refused([Problem(where, f"{path}: {(error.strerror or str(error)).lower()}")]) from None
    except Refused:
        raise
    except Exception:
        # zipfile raises whatever it stumbles over in a list of members that makes no sense.
        raise (damaged if _has_its_end(path) else cut_short)(path, where) from None


def _has_its_end(path: AnyPath) -> bool:
    """torch writes no comment behind an archive's last record, which is 22 bytes long."""
    with remote.opened(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 22))
        return file.read(4) == b"PK\x05\x06"


def is_whole(path: Path) -> bool:
    """Whether every byte of an archive is as it was written: torch does not look at the checksums that it writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:
        # zipfile raises whatever it stumbles over in a list of members that makes no sense.
        return False


def cut_short(path: AnyPath, where: str) -> Refused:
    remedy = "it was not written or copied to its end; take an earlier one, or copy it again"
    return Refused([Problem(where, f"{path} is cut short", remedy=remedy)])


def damaged(path: AnyPath, where: str) -> Refused:
    return Refused([Problem(where, f"{path} is damaged", remedy="take an earlier one, or copy it again")])


def not_weights(path: AnyPath, where: str) -> Refused:
    allowed = "a checkpoint of a run, or a state_dict that torch.save wrote"
    return Refused([Problem(where, f"{path} is not a file with weights", allowed)])


def executes(path: AnyPath, where: str, name: str) -> Refused:
    what = f"{path} would execute code when it is read ({name}); it was not read"
    return Refused([Problem(where, what, remedy="save weights alone: torch.save(model.state_dict(), FILE)")])


def name_in_pickle(path: AnyPath) -> str:
    """The first Python name that a pickle would look up, "" where there is none; nothing is executed."""
    texts: list[str] = []
    try:
        with remote.opened(path) as file:
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if operation.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                if isinstance(argument, str):
                    texts.append(argument)
    except Exception:
        # genops raises whatever it stumbles over where the bytes are no pickle.
        return ""
    return ""
