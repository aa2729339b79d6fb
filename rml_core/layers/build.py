"""A `Network` as a torch module with Keras's initial weights."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn

from rml_core.config.seed import derive
from rml_core.layers.graph import Call, Layer, Network
from rml_core.layers.modules.activations import activation
from rml_core.layers.modules.penalty import Penalty, Watched
from rml_core.layers.section import Run

# A step: what to run, the values that it takes and the one that it makes, and the values that nobody needs after it.
Step = tuple[Run, tuple[int, ...], int, tuple[int, ...]]


def build(network: Network, seed: int) -> Built:
    """The network in float32 on the CPU: (N, C, *spatial) -> (N, C2, *spatial) or (N, C2).

    The keys of its state are `<layer>.<weight>` with torch's names of weights, `outer/inner.<weight>` for a nested
    model's layers; a dot in a layer's name becomes a slash. A frozen layer's parameters have `requires_grad` False.
    Each weight depends on the seed, the layer's name and its own, and on nothing else.
    """
    return Built(network, seed)


class Built(nn.Module):
    """A network's steps, run one after the other. `penalty`: what its regularisers add to the loss, None for none."""

    def __init__(self, network: Network, seed: int):
        super().__init__()
        runs = [layer.section.module(layer.shapes, network.graph.keras_version) for layer in network.unique]
        for layer, run in zip(network.unique, runs, strict=True):
            if isinstance(run, nn.Module):
                _fill(run, layer, seed)
                # Not `add_module`: Keras's names may be those of a module's own attributes.
                self._modules[layer.key] = run
        self.penalty = _penalty(network, runs)
        self._steps, self._output, self._count = _compiled(network, runs, self.penalty)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, *spatial)."""
        values: list[Tensor | None] = [None] * self._count
        values[0] = x
        if self.penalty is not None:
            self.penalty.begin()
        for run, inputs, output, spent in self._steps:
            values[output] = run(*[values[index] for index in inputs])
            for index in spent:
                values[index] = None
        result = values[self._output]
        assert result is not None
        return result


def _fill(module: nn.Module, layer: Layer, seed: int) -> None:
    for weight in layer.weights:
        generator = torch.Generator().manual_seed(derive(seed, "initial", layer.name, weight.name) % 2**63)
        values = weight.initializer.draw(weight.shape, generator)
        if weight.axes:
            values = values.permute(weight.axes)
        values = values.contiguous()
        if weight.learned:
            setattr(module, weight.attribute, nn.Parameter(values, requires_grad=layer.section.trainable))
        else:
            setattr(module, weight.attribute, values)


def _penalty(network: Network, runs: list[Run | None]) -> Penalty | None:
    """Keras 2 counts frozen weights too, Keras 3 does not."""
    found = []
    for layer, run in zip(network.unique, runs, strict=True):
        for weight in layer.weights:
            regularizer = layer.section.regularizer(weight)
            if regularizer is not None and (layer.section.trainable or network.graph.keras_version == 2):
                assert isinstance(run, nn.Module)
                found.append((run, weight.attribute, regularizer.factors))
    shown = any(layer.section.activity_regularizer is not None for layer in network.unique)
    return Penalty(found) if found or shown else None


def _compiled(network: Network, runs: list[Run | None], penalty: Penalty | None) -> tuple[list[Step], int, int]:
    """The steps, the slot that ends up with the output, and the number of slots."""
    users = _users(network.calls, network.output)
    slots = [0]  # of each value
    fresh = [False]  # whether the slot's tensor is new, and is used by nobody but the next step
    made: list[tuple[Run, tuple[int, ...], int]] = []
    for call in network.calls:
        layer = network.unique[call.layer]
        run = runs[call.layer]
        inputs = tuple(slots[value] for value in call.inputs)
        single = len(call.inputs) == 1 and users[call.inputs[0]] == 1
        slot, new = inputs[0], single and fresh[call.inputs[0]]
        if run is not None:
            if call.training is not None and layer.section.modal:
                run = partial(run, training=call.training)
            slot, new = len(made) + 1, layer.section.fresh(layer.shapes)
            made.append((run, inputs, slot))
        after = activation(layer.section.applied, len(layer.output_shape) + 1, network.graph.keras_version, new)
        if after is not None:
            if len(slots) == network.last_activated:
                after = partial(_in_single, run=after)
            made.append((after, (slot,), len(made) + 1))
            slot, new = len(made), False
        watched = layer.section.activity_regularizer
        if watched is not None:
            assert penalty is not None
            made.append((Watched(penalty, watched.factors), (slot,), len(made) + 1))
            slot, new = len(made), False
        slots.append(slot)
        fresh.append(new)
    return _spent(made, slots[network.output]), slots[network.output], len(made) + 1


def _in_single(x: Tensor, run: Run) -> Tensor:
    """Probabilities near 0 and 1, and their logarithms, need more digits than half precision has."""
    return run(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x)


def _users(calls: Iterable[Call], output: int) -> dict[int, int]:
    """How often each value is used; the output once more."""
    users = {output: 1}
    for call in calls:
        for value in call.inputs:
            users[value] = users.get(value, 0) + 1
    return users


def _spent(made: list[tuple[Run, tuple[int, ...], int]], output: int) -> list[Step]:
    last: dict[int, int] = {}
    for step, (_, inputs, _) in enumerate(made):
        last.update(dict.fromkeys(inputs, step))
    return [
        (run, inputs, slot, tuple(index for index in dict.fromkeys(inputs) if last[index] == step and index != output))
        for step, (run, inputs, slot) in enumerate(made)
    ]
