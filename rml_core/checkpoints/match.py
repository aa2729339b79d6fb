"""Which weight of a file goes to which layer of a network."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from rml_core.config.problem import Problem, Refused


def load_into(
    module: nn.Module, weights: Mapping[str, Tensor], where: str = "neural_network.checkpoints.load"
) -> list[str]:
    """Copy `weights` (`<layer>.<weight>`) into the layers of the same name; a layer is filled or skipped as a whole.

    Returns what is to be said: a line for each layer of the file that is skipped or for a weight that the file does
    not have, and a count at the end. Raises `Refused` where no layer fits.
    """
    own = _by_layer(module.state_dict())
    lines: list[str] = []
    fitting: dict[str, Tensor] = {}
    given = _by_layer(weights)
    for layer, values in given.items():
        problem = _misfit(values, own.get(layer))
        if problem:
            lines.append(f"Skipping layer {layer}: {problem}")
            continue
        fitting |= {_key(layer, name): value for name, value in values.items() if name in own[layer]}
        missing = [name for name in own[layer] if name not in values and name not in COUNTERS]
        lines += [f"Layer {layer}: {name} is not in the file, it stays as it was" for name in missing]
    loaded = {_layer(key) for key in fitting}
    if not loaded:
        raise Refused([Problem(where, "no layer of the network has weights in the file", remedy="\n    ".join(lines))])
    module.load_state_dict(fitting, strict=False)
    skipped = len(given) - len(loaded)
    return [*lines, f"Loaded {len(loaded)} of the network's {len(own)} layers with weights, skipped {skipped}"]


# Buffers that torch's layers keep and that no output depends on.
COUNTERS = ("num_batches_tracked",)


def _misfit(values: Mapping[str, Tensor], own: Mapping[str, Tensor] | None) -> str:
    if own is None:
        return "not found in model"
    for name, value in values.items():
        if name not in own:
            if name in COUNTERS:
                continue
            return f"weight {name} not found in model"
        if value.shape != own[name].shape:
            return f"shape {tuple(value.shape)} does not fit {tuple(own[name].shape)}"
    return ""


def _by_layer(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        layers.setdefault(_layer(key), {})[key.rpartition(".")[2]] = value
    return layers


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _key(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name
