"""A network as its file describes it (`Graph`), and with every shape worked out (`Network`), without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from rml_core.config.problem import Problem, Refused
from rml_core.layers.dropout import Dropout, StochasticDepth
from rml_core.layers.inputs import InputLayer
from rml_core.layers.reshaping import Cropping, Flatten, Permute, Reshape
from rml_core.layers.section import LayerSection, Misfit, Shape, Weight, say

# The output of no node: what the graph itself is given.
GIVEN = -1


@dataclass(frozen=True)
class Entry:
    """A layer, or a nested model, as the file lists it; `where` is its JSON path."""

    name: str
    class_name: str
    content: LayerSection | Graph
    where: str = field(compare=False)


@dataclass(frozen=True)
class Node:
    """One call of an entry on the outputs of other nodes (`GIVEN`: on the graph's input).

    `numbers` are operands that are no outputs: (which operand, its value). `training`: the mode that the call asks
    for; None: that of the whole.
    """

    entry: int
    inputs: tuple[int, ...]
    numbers: tuple[tuple[int, float], ...] = ()
    training: bool | None = None


@dataclass(frozen=True)
class Graph:
    """One input, one output; `nodes` are in an order in which they can run, `output` is one of them.

    `input_shape` is channels last without the batch, None for sizes that are not known, and None altogether where
    the file says nothing. `layers` counts the file's entries, as `rml network` does.
    """

    entries: tuple[Entry, ...]
    nodes: tuple[Node, ...]
    output: int
    input_shape: Shape | None
    trainable: bool
    keras_version: int
    where: str = field(compare=False)

    @property
    def layers(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class Layer:
    """A layer with its weights, however often it is called. A nested model's layers are named `outer/inner`."""

    name: str
    class_name: str
    section: LayerSection
    where: str = field(compare=False)
    shapes: tuple[Shape, ...]
    output_shape: Shape
    weights: tuple[Weight, ...]

    @property
    def key(self) -> str:
        """The name in the state of the torch module, where a dot is what joins names."""
        return self.name.replace(".", "/")

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        return [weight.shape for weight in self.weights]

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.sizes))

    @property
    def trainable(self) -> int:
        if not self.section.trainable:
            return 0
        return sum(math.prod(weight.shape) for weight in self.weights if weight.learned)


@dataclass(frozen=True)
class Call:
    """`layer` called on values: 0 is the network's input, k the output of call k - 1.

    `training`: the mode that it runs in; None: the network's own.
    """

    layer: int
    inputs: tuple[int, ...]
    training: bool | None = None


@dataclass(frozen=True)
class Row:
    """A layer as a table shows it: channels-last output shape, counts of weights, the layers it is fed by."""

    name: str
    class_name: str
    output_shape: Shape
    parameters: int
    trainable: int
    inbound: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """A graph without nesting, every shape known but for sizes that only the data decides (None).

    `calls` run in order, and the value `output` is the result. `input_shape` and `output_shape` are channels first
    without the batch, `output_shape_keras` channels last.
    """

    graph: Graph
    unique: tuple[Layer, ...]
    calls: tuple[Call, ...]
    output: int
    input_shape: Shape
    output_shape_keras: Shape

    @property
    def output_shape(self) -> Shape:
        return channels_first(self.output_shape_keras)

    @property
    def parameters(self) -> int:
        """Counted as Keras counts: moving statistics are parameters, not trainable ones."""
        return sum(layer.parameters for layer in self.unique)

    @property
    def trainable(self) -> int:
        return sum(layer.trainable for layer in self.unique)

    @property
    def layers(self) -> int:
        return self.graph.layers

    @property
    def random(self) -> bool:
        """Whether training draws random numbers in the network."""
        return any(layer.section.random for layer in self.unique)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        fed: dict[int, dict[str, None]] = {index: {} for index in range(len(self.unique))}
        for call in self.calls:
            names = (self.unique[self.calls[value - 1].layer].name for value in call.inputs if value)
            fed[call.layer].update(dict.fromkeys(names))
        return tuple(
            Row(layer.name, layer.class_name, layer.output_shape, layer.parameters, layer.trainable, tuple(fed[index]))
            for index, layer in enumerate(self.unique)
        )

    @property
    def last_layer(self) -> str:
        """The JSON path of the layer that gives the output."""
        return self.unique[self.calls[self.output - 1].layer].where if self.output else self.graph.where

    @property
    def last_activation(self) -> str:
        """What the output's numbers are: `softmax`, `log_softmax` (over the channels), `sigmoid`, `linear`, ..."""
        if not self.last_activated:
            return "linear"
        layer = self.unique[self.calls[self.last_activated - 1].layer]
        applied = layer.section.applied
        if applied.name in ("softmax", "log_softmax") and applied.axis not in (-1, len(layer.output_shape)):
            return "linear"
        return applied.name

    @property
    def last_activated(self) -> int:
        """The value that the output's numbers are: what comes after it only lets them pass."""
        value = self.output
        while value:
            call = self.calls[value - 1]
            layer = self.unique[call.layer]
            if layer.section.applied.name != "linear" or not _passes(layer):
                break
            value = call.inputs[0]
        return value


def _passes(layer: Layer) -> bool:
    """Whether the layer leaves each place's channels as they are."""
    if isinstance(layer.section, Reshape | Flatten):
        return layer.shapes[0][-1] == layer.output_shape[-1]
    if isinstance(layer.section, Permute):
        return layer.section.dims[-1] == len(layer.section.dims)
    return isinstance(layer.section, Dropout | StochasticDepth | Cropping) or (
        not layer.weights and type(layer.section).module is LayerSection.module
    )


def channels_first(shape: Shape) -> Shape:
    return (*shape[-1:], *shape[:-1])


def channels_last(shape: Shape) -> Shape:
    return (*shape[1:], *shape[:1])


def infer(graph: Graph, sample_shape: Iterable[int | None] | None) -> Network:
    """The network for samples of `sample_shape`, channels first; None: of the shape that the file itself carries.

    Raises `Refused` with every layer that cannot take what it is given.
    """
    shape = graph.input_shape
    if sample_shape is not None:
        given = channels_last(tuple(sample_shape))
        if shape is not None and not _compatible(shape, given):
            raise Refused([_other_input(graph, shape, given)])
        shape = given
    if shape is None:
        remedy = 'give its first layer "batch_input_shape": [null, height, width, channels]'
        raise Refused([Problem(graph.where, "the network does not say the shape of its input", "", remedy)])
    return _Flattening(graph).network(shape)


def _compatible(declared: Shape, given: Shape) -> bool:
    return len(declared) == len(given) and all(
        a is None or b is None or a == b for a, b in zip(declared, given, strict=True)
    )


def _other_input(graph: Graph, declared: Shape, given: Shape) -> Problem:
    remedy = "write null for the sizes that may vary, or make the samples fit"
    if len(declared) == len(given) and declared[-1] != given[-1]:
        remedy = "make the channels agree; images are of one channel with grayscale, else of three"
    what = f"the network's input is {say(declared)}, channels last, but the samples are {say(given)}"
    return Problem(graph.where, what, "", remedy)


class _Flattening:
    """Walks a graph and the graphs nested in it, calling layer after layer on shapes."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.layers: list[Layer] = []
        self.calls: list[Call] = []
        self.shapes: list[Shape | None] = []  # of the values; None where a layer before could not be called
        self.places: dict[str, int] = {}
        self.problems: list[Problem] = []

    def network(self, shape: Shape) -> Network:
        self.shapes.append(shape)
        output = self._run(self.graph, 0, "", True, None)
        last = self.shapes[output]
        if self.problems or last is None:
            raise Refused(self.problems)
        return Network(self.graph, tuple(self.layers), tuple(self.calls), output, channels_first(shape), last)

    def _run(self, graph: Graph, given: int, prefix: str, trainable: bool, training: bool | None) -> int:
        """The value that is the output of `graph`, called on the value `given` in the mode `training`."""
        values: list[int] = []
        for node in graph.nodes:
            entry = graph.entries[node.entry]
            inputs = tuple(given if index == GIVEN else values[index] for index in node.inputs)
            name, learns = prefix + entry.name, trainable and graph.trainable
            mode = training if node.training is None else node.training
            if isinstance(entry.content, Graph):
                fits = self._expect(entry, entry.content, node, inputs)
                values.append(self._run(entry.content, inputs[0], name + "/", learns, mode) if fits else self._lost())
            elif prefix and isinstance(entry.content, InputLayer):
                values.append(inputs[0])
            else:
                values.append(self._call(entry, node, inputs, name, learns, mode))
        return values[graph.output]

    def _expect(self, entry: Entry, graph: Graph, node: Node, inputs: tuple[int, ...]) -> bool:
        """Whether a nested model can be called with what it is given."""
        if len(inputs) != 1 or node.numbers:
            self._problem(entry, f"takes the output of one layer, and is given {len(inputs) + len(node.numbers)}")
            return False
        shape = self.shapes[inputs[0]]
        if graph.input_shape and shape and not _compatible(graph.input_shape, shape):
            self._problem(entry, f"its input is {say(graph.input_shape)}, but it is given {say(shape)}")
            return False
        return True

    def _lost(self) -> int:
        """A value that cannot be had; what is fed by it is passed over."""
        self.calls.append(Call(-1, ()))
        self.shapes.append(None)
        return len(self.calls)

    def _call(
        self, entry: Entry, node: Node, inputs: tuple[int, ...], name: str, learns: bool, training: bool | None
    ) -> int:
        section = entry.content
        assert isinstance(section, LayerSection)
        shapes = tuple(shape for value in inputs if (shape := self.shapes[value]) is not None)
        place, output = -1, None
        if len(shapes) == len(inputs):
            if section.trainable and not learns:
                section = section.model_copy(update={"trainable": False})
            try:
                if node.numbers:
                    section = section.with_numbers(node.numbers)
                section.check(shapes)
                called = section.output_shape(*shapes)
                weights = section.weights(*shapes)
                place = self._place(Layer(name, entry.class_name, section, entry.where, shapes, called, weights))
                output = called
            except Misfit as misfit:
                self._problem(entry, misfit.what, misfit.remedy)
        self.calls.append(Call(place, inputs, training))
        self.shapes.append(output)
        return len(self.calls)

    def _place(self, layer: Layer) -> int:
        """Where in `layers` this one is; a shared layer is there already."""
        place = self.places.setdefault(layer.key, len(self.layers))
        if place == len(self.layers):
            self.layers.append(layer)
        first = self.layers[place]
        if first.where != layer.where:
            raise Misfit(f'another layer is called "{layer.name}" too', "give every layer a name of its own")
        if first.section != layer.section:
            raise Misfit("it is shared, and cannot be one layer for calls with different numbers")
        if list(map(len, first.shapes)) != list(map(len, layer.shapes)) or first.sizes != layer.sizes:
            one, other = (", ".join(map(say, each.shapes)) for each in (first, layer))
            raise Misfit(f"it is shared, and cannot be one layer for both {one} and {other}")
        return place

    def _problem(self, entry: Entry, what: str, remedy: str = "") -> None:
        problem = Problem(entry.where, f'layer "{entry.name}" ({entry.class_name}): {what}', "", remedy)
        if problem not in self.problems:
            self.problems.append(problem)
