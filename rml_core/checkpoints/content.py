"""What a file with weights is, told from its first bytes and its list of members, never from its name."""

from __future__ import annotations

import os
import pickletools
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rml_core.config import remote
from rml_core.config.problem import Problem, Refused, shown

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

ZIP = b"PK\x03\x04"
HDF5 = b"\x89HDF\r\n\x1a\n"
# What torch.save wrote before 1.6 begins with: the pickled number 0x1950a86a20f9469cfc6c.
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
PICKLE = b"\x80"

# What can be read, in the words of messages.
READ = (
    "a checkpoint of a run, a state_dict that torch.save wrote, a libtorch archive, or Keras's weights "
    "(.h5, .weights.h5, .keras)"
)


@dataclass(frozen=True)
class Content:
    """`head`: the first bytes. `members`: names in a zip archive, as they are and below their first folder: torch
    puts all of its own into one; or what is at the root of an HDF5 file, with `attributes` there."""

    head: bytes
    members: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()


def is_libtorch(content: Content) -> bool:
    return "constants.pkl" in content.members


def is_torch(content: Content) -> bool:
    return content.head.startswith(LEGACY) or ("data.pkl" in content.members and not is_libtorch(content))


def is_keras_3(content: Content) -> bool:
    return "config.json" in content.members and "model.weights.h5" in content.members


def is_hdf5(content: Content) -> bool:
    return content.head.startswith(HDF5)


def is_keras_h5(content: Content) -> bool:
    return is_hdf5(content) and bool(
        "model_weights" in content.members or {"layer_names", "layer_names0"} & content.attributes
    )


def is_keras_3_weights(content: Content) -> bool:
    return is_hdf5(content) and bool({"layers", "_layer_checkpoint_dependencies"} & content.members)


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
                return _of_hdf5(head, file, path, where) if head.startswith(HDF5) else Content(head)
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


def _of_hdf5(head: bytes, file: IO[bytes], path: AnyPath, where: str) -> Content:
    from rml_core.checkpoints.hdf5 import hdf5

    file.seek(0)
    with hdf5(file, path, where) as root:
        return Content(head, frozenset(root), frozenset(root.attrs))


def _has_its_end(path: AnyPath) -> bool:
    """torch writes no comment behind an archive's last record, which is 22 bytes long."""
    with remote.opened(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 22))
        return file.read(4) == b"PK\x05\x06"


# MS-DOS's attribute of a folder, as ZIP archives have it.
DIRECTORY = 0x10


def is_whole(path: AnyPath) -> bool:
    """Whether every byte of an archive is as it was written: torch does not look at the checksums that it writes."""
    try:
        with remote.opened(path) as file, zipfile.ZipFile(file) as archive:
            # What is marked as a folder torch passes over: its values are whatever memory holds.
            folders = any(member.external_attr & DIRECTORY and not member.is_dir() for member in archive.infolist())
            return not folders and archive.testzip() is None
    except Exception:
        # zipfile raises whatever it stumbles over in a list of members that makes no sense.
        return False


def cut_short(path: AnyPath, where: str) -> Refused:
    remedy = "it was not written or copied to its end; take an earlier one, or copy it again"
    return Refused([Problem(where, f"{path} is cut short", remedy=remedy)])


def damaged(path: AnyPath, where: str) -> Refused:
    return Refused([Problem(where, f"{path} is damaged", remedy="take an earlier one, or copy it again")])


def not_weights(path: AnyPath, where: str) -> Refused:
    return Refused([Problem(where, f"{path} is not a file with weights", READ)])


def no_file(path: AnyPath, where: str, kind: str | None) -> Problem:
    """At `path` is no file but a folder, or nothing (None); TensorFlow's formats of several files are known."""
    found = of_tensorflow(path, where)
    if found:
        return found
    what = f"{path} is a folder" if kind == "folder" else f"{path} does not exist"
    return Problem(where, what, "a file with weights")


def without_weights(path: AnyPath, where: str, content: Content) -> Refused:
    what = f"{path} is an HDF5 file without weights of Keras: at its root are {shown(sorted(content.members))}"
    return Refused([Problem(where, what, "what Keras's model.save or model.save_weights writes")])


def of_tensorflow(path: AnyPath, where: str) -> Problem | None:
    """None where `path` is neither the folder of one of TensorFlow's formats, nor the beginning of its files' names,
    nor one of those."""
    if not isinstance(path, Path):
        return None
    if (path / "saved_model.pb").exists() or path.name == "saved_model.pb":
        found = "a TensorFlow SavedModel"
    elif path.is_dir() and next(path.glob("*.index"), None) is not None:
        found = "a folder with a TensorFlow checkpoint"
    elif path.with_name(f"{path.name}.index").exists() or re.search(r"\.(index|data-\d{5}-of-\d{5})$", path.name):
        found = "a TensorFlow checkpoint"
    else:
        return None
    remedy = 'load it with TensorFlow and save its weights in one file: model.save_weights("model.weights.h5")'
    return Problem(where, f"{path} is {found}, which is not read", READ, remedy)


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
