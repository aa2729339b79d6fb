"""Every random draw of a run comes from its seed by name and position, never from who gets there first."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *place: str | int) -> int:
    """64 bits for this place of the run, `derive(0, "order", epoch)`; the same on every machine."""
    text = repr((seed, *place)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def generator(seed: int, *place: str | int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=derive(seed, *place)))
