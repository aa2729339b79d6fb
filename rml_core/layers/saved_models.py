"""The JSON of a network inside the files in which Keras saves a whole model: `.h5`, and the archive `.keras`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"


# What makes the JSON where the model is.
TO_JSON = 'open("model.json", "w").write(model.to_json())'

_WRITE = f"write its JSON: {TO_JSON}"


class NoNetwork(Exception):
    """A file of Keras without its network's JSON; its text says why."""

    def __init__(self, what: str, remedy: str = f"write its JSON beside it: {TO_JSON}"):
        self.remedy = remedy
        super().__init__(what)


def refuse_folder(path: AnyPath) -> None:
    """Raises `NoNetwork` where `path` is the folder of a SavedModel, or its main file."""
    if isinstance(path, Path) and ((path / "saved_model.pb").exists() or path.name == "saved_model.pb"):
        raise NoNetwork("is a TensorFlow SavedModel, which is not read", f"load it with TensorFlow, and {_WRITE}")


def json_in(file: IO[bytes]) -> Any:
    """What `model.to_json()` would say of the model in `file`; None where the file is none of Keras's.

    Raises:
        NoNetwork: it has weights alone, or is damaged.
    """
    head = file.read(len(HDF5))
    file.seek(0)
    try:
        if head == HDF5:
            return _in_hdf5(file)
        if head.startswith(ZIP):
            return _in_archive(file)
    except NoNetwork:
        raise
    except Exception as error:
        # h5py and zipfile raise whatever they stumble over in a file that is not whole.
        raise NoNetwork(f"is damaged: {error}") from None
    return None


def _in_hdf5(file: IO[bytes]) -> Any:
    import h5py

    with h5py.File(file, "r") as whole:
        if "model_config" not in whole.attrs:
            remedy = (
                f"the JSON comes from the code that built it: {TO_JSON}; if others sent you the file, ask them for it"
            )
            raise NoNetwork("holds weights and no network", remedy)
        # Keras 1 does not say its version.
        return _with_version(whole.attrs["model_config"], whole.attrs.get("keras_version", "1"))


def _in_archive(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        if "config.json" not in archive.namelist():
            raise NoNetwork("is an archive without the network of a Keras model")
        about = json.loads(archive.read("metadata.json")) if "metadata.json" in archive.namelist() else {}
        return _with_version(archive.read("config.json"), about.get("keras_version", "3"))


def _with_version(text: bytes | str, version: bytes | str) -> Any:
    """The model of `text` with the version that the file has of it, which is said elsewhere than in JSON of its own."""
    model = json.loads(text)
    version = version.decode() if isinstance(version, bytes) else version
    return {"keras_version": version, **model} if isinstance(model, dict) else model
