"""Debug information: the statistics of every parameter and of its gradient, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rml_core.engine.log import as_json, put


def statistics(tensor: Tensor) -> dict[str, float]:
    """Over all numbers of the tensor, in double precision; `std` divides by their count."""
    values = tensor.detach().double()
    return {
        "mean": values.mean().item(),
        "std": values.std(correction=0).item(),
        "min": values.min().item(),
        "max": values.max().item(),
        "norm": values.norm().item(),
    }


def write(network: nn.Module, path: Path) -> None:
    """Write `{"layer.weight": {"parameter": {...}, "gradient": {...}}}`, the gradients those of the last update: as it
    took them, unscaled and clipped. Frozen weights have none. What is not finite is null."""
    table: dict[str, Any] = {}
    for name, parameter in network.named_parameters():
        table[name] = {"parameter": statistics(parameter)}
        if parameter.grad is not None:
            table[name]["gradient"] = statistics(parameter.grad)
    put(path, as_json(table, indent=1).encode())
