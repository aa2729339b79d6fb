"""The JSON of a network inside the files in which Keras saves a whole model: `.h5`, and the archive `.keras`."""

from __future__ import annotations

import json
import zipfile
from typing import IO, Any

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"


class NoNetwork(Exception):
    """A file of Keras without its network's JSON; its text says why."""


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
            raise NoNetwork("holds no network, only its weights")
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
