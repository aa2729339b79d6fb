"""Predictions of whole samples: one HDF5 file an evaluation, one dataset a sample, named by the sample's path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from rml_core.config.problem import RunFailed


class Predictions:
    """Writes float32 (C, ...) datasets; the file appears under its name only when it is whole.

    `path` None: nothing is written.

    Raises:
        RunFailed: the file cannot be written (a full disk, a read-only folder).
    """

    def __init__(self, path: Path | None, names: Sequence[str]):
        self.path, self.names = path, names
        self._file: Any = None

    def __enter__(self) -> Predictions:
        if self.path is not None:
            import h5py

            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            try:
                self._file = h5py.File(self._unfinished, "w")
            except OSError as error:
                raise RunFailed(f"{self.path}: {error}") from error
        return self

    def add(self, indices: Iterable[int], outputs: Tensor) -> None:
        """outputs: (N, C, ...), in the order of `indices`."""
        if self._file is None:
            return
        arrays = outputs.float().cpu().contiguous().numpy()
        try:
            for index, array in zip(indices, arrays, strict=True):
                self._file.create_dataset(self.names[index], data=array)
        except OSError as error:
            raise RunFailed(f"{self.path}: {error}") from error

    def discard(self) -> None:
        """Leave nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._unfinished.unlink(missing_ok=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        if kind is not None:
            self.discard()
            return
        assert self.path is not None
        try:
            self._file.close()
            os.replace(self._unfinished, self.path)
        except OSError as failure:
            self._unfinished.unlink(missing_ok=True)
            raise RunFailed(f"{self.path}: {failure}") from failure
