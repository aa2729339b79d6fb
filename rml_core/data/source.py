"""What batches are made of: something that knows the order of its samples, and writes them into arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Room(NamedTuple):
    """The arrays of a batch, as samples are held: (N, H, W, C) where they are 2D, else channels first. `targets`:
    int64 (N,) labels or (N, ...) masks, float32 values as the inputs, or None. `kept`: bool (N, *spatial), or None."""

    inputs: np.ndarray
    targets: np.ndarray | None
    kept: np.ndarray | None = None

    def rows(self, rows: slice) -> Room:
        """Views of some of the samples."""
        inputs, targets, kept = self
        return Room(inputs[rows], None if targets is None else targets[rows], None if kept is None else kept[rows])

    @property
    def shares(self) -> bool:
        """Samples are parts of one array and overlap in it: one thread fills all of them."""
        return len(self.inputs) > 1 and self.inputs.strides[0] < self.inputs[0].nbytes

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self if array is not None)


class Source(ABC):
    """Samples by their numbers, from 0 on. Safe to use from several threads.

    `count`: how many there are. `names`: what their predictions are called. `places`: their names, and where they
    lie. `warnings`: what passes over them have shown; who says it takes it out.
    """

    count: int
    names: Sequence[str]
    places: Sequence[str]
    warnings: list[str]

    @abstractmethod
    def parts(
        self, batch_size: int, seed: int, epoch: int, training: bool, shuffle: bool, start: int
    ) -> Iterator[np.ndarray]:
        """The numbers of the samples of each batch of `epoch`, int64 (N,), from the batch `start` (from 0) on. Samples
        of a batch are alike. `shuffle` acts in training alone."""

    @abstractmethod
    def is_quick(self, training: bool, batch_size: int) -> bool:
        """Whether a batch is made in less time than it takes to hand it to a thread."""

    @abstractmethod
    def room(self, indices: np.ndarray) -> Room | None:
        """Room for the samples `indices`; None where each is of a shape of its own, and comes `alone`."""

    @abstractmethod
    def fill(self, indices: np.ndarray, room: Room, seed: int, epoch: int, training: bool) -> None:
        """Write the samples `indices` into the rows of `room`. Raises `RunFailed` naming the file."""

    @abstractmethod
    def alone(self, indices: np.ndarray, seed: int, epoch: int, training: bool) -> Room:
        """A batch of one sample, of whatever shape. Raises `ValueError` for more."""

    @abstractmethod
    def passed(self) -> None:
        """All batches of a pass have been made, to the last one."""

    @abstractmethod
    def broken(self, indices: np.ndarray) -> str:
        """Which of the samples `indices` have numbers that are not finite; "": none. Reads them again."""

    @abstractmethod
    def forget(self) -> None:
        """Let go of memory that is held to be read again."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files that are open."""
