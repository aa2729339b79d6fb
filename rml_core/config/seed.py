"""Every random draw of a run comes from its seed by name and position, never from who gets there first."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np


def derive(seed: int, *place: str | int) -> int:
    """64 bits for this place of the run, `derive(0, "order", epoch)`; the same on every machine."""
    text = repr((seed, *place)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def generator(seed: int, *place: str | int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=derive(seed, *place)))


class Generators:
    """`generator` of one place after the other, in a fraction of the time: what `at` gives is good until the next call.

    Not to be shared between threads.
    """

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=0)
        self._begin: Any = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, seed: int, *place: str | int) -> np.random.Generator:
        self._begin["state"]["key"][0] = derive(seed, *place)
        self._bits.state = self._begin
        return self._generator
