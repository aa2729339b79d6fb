"""Debug information: the statistics of every parameter and of its gradient, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rml_core.engine.log import put


def statistics(tensor: Tensor) -> dict[str, float]:
    values = tensor.detach().double()
    return {
        "mean": values.mean().item(),
        "std": values.std(correction=0).item(),
        "min": values.min().item(),
        "max": values.max().item(),
        "norm": values.norm().item(),
    }


def write(network: nn.Module, path: Path) -> None:
    """Write `{"layer.weight": {"parameter": {...}, "gradient": {...}}}`, the gradients those of the last update."""
    table: dict[str, Any] = {}
    for name, parameter in network.named_parameters():
        table[name] = {"parameter": statistics(parameter)}
        if parameter.grad is not None:
            table[name]["gradient"] = statistics(parameter.grad)
    put(path, (json.dumps(table, indent=1) + "\n").encode())
