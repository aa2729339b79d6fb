"""Held samples, (H, W, C) or channels first, as float32."""

from __future__ import annotations

import numpy as np

from rml_core.transforms.floats import Ending


def ended(ending: Ending, array: np.ndarray) -> np.ndarray:
    """`array`, held, as float32."""
    if array.ndim == 3:
        return ending.apply(array)
    return np.moveaxis(ending.apply(np.moveaxis(array, 0, -1)), -1, 0)


def end(ending: Ending, array: np.ndarray, out: np.ndarray) -> None:
    """`ended`, into `out`."""
    if array.ndim == 3:
        ending.apply_into(array, out)
    else:
        out[...] = ended(ending, array)
