"""A layer's weights as Keras has them, and as torch does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rml_core.checkpoints.stored import Held, Slot, Stored, Wanted

if TYPE_CHECKING:
    from torch import Tensor


class Unfit(Exception):
    """Weights that are not those of the layer; its text says why."""


def in_torch(held: Held, stored: Stored, layer: Wanted) -> dict[str, Tensor]:
    """The values of `held` by the attributes of the torch module, in its layout.

    Raises:
        Unfit: they are others than the layer's, or of another shape.
    """
    values: dict[str, Tensor] = {}
    for slot, value in _paired(held, layer.weights):
        fitting = _as_now(value, slot, stored, layer.class_name)
        if tuple(fitting.shape) != slot.shape:
            raise Unfit(f"shape {tuple(fitting.shape)} does not fit {slot.shape}")
        values[slot.attribute] = fitting.permute(slot.axes) if slot.axes else fitting
    return values


def _paired(held: Held, slots: Sequence[Slot]) -> list[tuple[Slot, Tensor]]:
    """By name where all names are known, else by order: versions of Keras call a weight by other names
    (`conv_W`, `kernel_1`, `0`), but have never changed its place."""
    named = {slot.name: slot for slot in slots}
    names = [name.rpartition("/")[2].partition(":")[0] for name, _ in held.weights]
    values = [value for _, value in held.weights]
    if len(set(names)) == len(names) and all(name in named for name in names):
        return [(named[name], value) for name, value in zip(names, values, strict=True)]
    if len(names) == len(slots):
        return list(zip(slots, values, strict=True))
    unknown = next((name for name in names if name not in named and not name.isdecimal()), None)
    if unknown is not None and named.keys() & set(names):
        raise Unfit(f"weight {unknown} not found in model")
    raise Unfit(f"{len(names)} weights in the file do not fit {len(slots)} in model: {', '.join(named)}")


def _as_now(value: Tensor, slot: Slot, stored: Stored, class_name: str) -> Tensor:
    """A kernel of Keras 1, or of Keras on Theano, in the layout of Keras 2 on TensorFlow."""
    rank = len(slot.shape) - 2
    if not slot.name.endswith("kernel") or rank < 1:
        return value
    if stored.keras == 1:
        if class_name == "Conv1D" and value.ndim == 4:
            # Keras 1.2 has (size, 1, input, output), 1.1 (output, input, size, 1).
            newer = value.shape[:2] == (slot.shape[0], 1)
            value = value[:, 0] if newer else value[..., 0].permute(2, 1, 0)
        elif class_name == "Conv2DTranspose":
            value = value.transpose(2, 3)
    return value.flip(tuple(range(rank))) if stored.flipped else value
