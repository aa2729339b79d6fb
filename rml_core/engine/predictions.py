"""Predictions of whole samples: one HDF5 file an evaluation, one dataset a sample, named by the sample's path."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rml_core.config import remote
from rml_core.config.problem import RunFailed
from rml_core.config.unfinished import another, remove_leftovers

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath


class Predictions:
    """Writes float32 (C, ...) datasets; the file appears under its name only when it is whole.

    `path` None: nothing is written.

    Raises:
        RunFailed: the file cannot be written (a full disk, a read-only folder).
    """

    def __init__(self, path: AnyPath | None, names: Sequence[str]):
        self.path, self.names = path, names
        self._file: Any = None
        self._scratch: str | None = None

    def __enter__(self) -> Predictions:
        if self.path is not None:
            import h5py

            try:
                if isinstance(self.path, Path):
                    self._local = self.path
                    self._local.parent.mkdir(parents=True, exist_ok=True)
                    remove_leftovers(self._local)
                else:
                    # What goes behind a URL is made here, and put there when it is whole.
                    self._scratch = tempfile.mkdtemp(prefix=f"rml-{os.getpid()}-")
                    self._local = Path(self._scratch, self.path.name)
                self._unfinished = another(self._local)
                self._disk = _Disk(self._unfinished)
            except OSError as error:
                raise RunFailed(f"{self.path}: {error.strerror or error}") from error
            self._file = h5py.File(self._disk, "w")
            self._in_groups = h5py.h5p.create(h5py.h5p.LINK_CREATE)
            self._in_groups.set_create_intermediate_group(True)
            self._in_groups.set_char_encoding(h5py.h5t.CSET_UTF8)
            # The same predictions are the same bytes, whenever they were made.
            self._timeless = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            self._timeless.set_obj_track_times(False)
        return self

    def add(self, indices: Iterable[int], outputs: Tensor) -> None:
        """outputs: (N, C, ...), in the order of `indices`."""
        if self._file is None:
            return
        from h5py import h5d, h5o, h5s, h5t

        arrays = outputs.float().cpu().contiguous().numpy()
        # As h5py's create_dataset, in a third of its time.
        space = h5s.create_simple(arrays.shape[1:])
        for index, array in zip(indices, arrays, strict=True):
            dataset = h5d.create(self._file.id, None, h5t.IEEE_F32LE, space, self._timeless)
            dataset.write(h5s.ALL, h5s.ALL, array)
            h5o.link(dataset, self._file.id, self.names[index].encode(), lcpl=self._in_groups)
        self._raise_failure()

    def discard(self) -> None:
        """Leave nothing."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None
            self._disk.close()
            self._unfinished.unlink(missing_ok=True)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

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
            self._raise_failure()
            os.replace(self._unfinished, self._local)
            if not isinstance(self.path, Path):
                remote.put(self._local, self.path)
        except OSError as failure:
            raise RunFailed(f"{self.path}: {failure.strerror or failure}") from failure
        finally:
            self.discard()

    def _raise_failure(self) -> None:
        if self._disk.failure is not None:
            reason = self._disk.failure.strerror or self._disk.failure
            raise RunFailed(f"{self.path}: {reason}") from self._disk.failure


class _Disk(io.RawIOBase):
    """The file as HDF5 gets it: a write that fails is kept in `failure`, and HDF5 is told that it went well.

    HDF5 cannot close a file that it could not write to: it says so many times, and brings the process down
    (HDF5 2.0, h5py 3.16).
    """

    def __init__(self, path: Path):
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._at = 0
        self.failure: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}
        self._at = offset + (start[whence] if whence in start else os.fstat(self._descriptor).st_size)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._at)
        self._at += count
        return count

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            while left and self.failure is None:
                written = os.pwrite(self._descriptor, left, self._at)
                left, self._at = left[written:], self._at + written
        except OSError as error:
            self.failure = error
        self._at += len(left)
        return count

    def truncate(self, size: int | None = None) -> int:
        size = self._at if size is None else size
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self.failure = self.failure or error
        return size

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
