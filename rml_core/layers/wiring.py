"""Which layer feeds which: Keras's `inbound_nodes`, in the ways that its versions write them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rml_core.config.problem import Problem, Refused, nearest, shown
from rml_core.config.section import json_path
from rml_core.layers.graph import GIVEN, Entry, Graph, Node
from rml_core.layers.inputs import InputLayer

_NODES = 'what Keras writes: [[["layer", 0, 0, {}]]]'

# An output as the file refers to it: the layer's name and which of its calls, counted from 0; None: the graph's input.
Reference = tuple[str, int] | None
LAST = -1
# In the place of a layer's name: what Keras 2 writes where the first operand is a number.
_CONSTANT = "_CONSTANT_VALUE"
# The operands that Keras 2 hands on by name, in their order.
_OPERANDS = ("x", "y")


@dataclass(frozen=True)
class Wire:
    """What feeds one call: outputs, and in their places among the operands the numbers; `training` as asked for."""

    inputs: tuple[Reference, ...]
    numbers: tuple[tuple[int, float], ...] = ()
    training: bool | None = None


def path(where: str, part: str | int) -> str:
    """`where` and one component more; `where` may be a file: `model.json: config.layers[3]`."""
    if where.endswith(": "):
        return where + json_path("", [part])
    return json_path(where, [part])


def wire(
    entries: list[Entry], items: list[Any], config: Mapping[str, Any], where: str, model: str
) -> tuple[tuple[Node, ...], int]:
    """The calls of `entries` in an order in which they can run, and which of them is the output.

    `items` are the entries as the file has them, `config` the model's, `where` and `model` the paths of the two.
    Raises `Refused`.
    """
    wiring = _Wiring(entries, where, model)
    calls = [list(wiring.calls(index, item)) for index, item in enumerate(items)]
    wiring.check_inputs(config.get("input_layers"))
    output = wiring.declared_output(config.get("output_layers"))
    wiring.stop()
    nodes, outputs = wiring.resolve(calls, output)
    wiring.stop()
    return wiring.ordered(nodes, outputs)


class _Wiring:
    def __init__(self, entries: list[Entry], where: str, model: str):
        self.entries, self.where, self.model = entries, where, model
        self.problems: list[Problem] = []
        self.place: dict[str, int] = {}
        for index, entry in enumerate(entries):
            if self.place.setdefault(entry.name, index) != index:
                remedy = "give every layer a name of its own"
                self.problem(path(entry.where, "name"), f'another layer is called "{entry.name}" too', remedy=remedy)

    def problem(self, where: str, what: str, allowed: str = "", remedy: str = "") -> None:
        self.problems.append(Problem(where, what, allowed, remedy))

    def stop(self) -> None:
        if self.problems:
            raise Refused(self.problems)

    def calls(self, index: int, item: Mapping[str, Any]) -> Iterator[Wire]:
        """What feeds each call of an entry; without connections that is the entry before."""
        inbound = item.get("inbound_nodes") or []
        where = path(self.entries[index].where, "inbound_nodes")
        if not isinstance(inbound, list):
            self.problem(where, f"{shown(inbound)} is not a list", _NODES)
        elif isinstance(self.entries[index].content, InputLayer):
            if inbound:
                self.problem(where, "an input is fed by nothing", "[]")
            yield Wire((None,))
        elif not inbound:
            yield Wire(((self.entries[index - 1].name, LAST) if index else None,))
        else:
            for number, node in enumerate(inbound):
                yield self._wire(node, path(where, number))

    def _wire(self, node: object, where: str) -> Wire:
        """One call: `[["a", 0, 0, {}], ...]`, or Keras 3's `{"args": ..., "kwargs": ...}`."""
        found: list[tuple[str, int] | float] = []
        modes: list[bool] = []
        if isinstance(node, Mapping) and "args" in node:
            found += self._arguments(node["args"], path(where, "args"))
            found += self._named(node.get("kwargs"), modes, path(where, "kwargs"))
        elif isinstance(node, list) and node and isinstance(node[0], str):
            found += self._operands(node, modes, where)
        elif isinstance(node, list) and node:
            for number, part in enumerate(node):
                found += self._operands(part, modes, path(where, number))
        else:
            self.problem(where, f"{shown(node)} does not say what feeds the layer", _NODES)
        numbers = tuple((place, each) for place, each in enumerate(found) if isinstance(each, float))
        inputs = tuple(each for each in found if not isinstance(each, float))
        return Wire(inputs, numbers, modes[0] if modes else None)

    def _arguments(self, value: object, where: str) -> Iterator[tuple[str, int] | float]:
        """What Keras 3 writes: tensors, numbers, and lists of them."""
        if isinstance(value, list):
            for number, part in enumerate(value):
                yield from self._arguments(part, path(where, number))
        elif isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            history = config.get("keras_history") if isinstance(config, Mapping) else None
            reference = self._reference(history, path(where, "config.keras_history"))
            if reference:
                yield reference
        elif type(value) in (int, float):
            yield float(value)  # type: ignore[arg-type]
        elif value is not None:
            self.problem(where, f"{shown(value)} is not the output of a layer", "__keras_tensor__")

    def _named(self, arguments: object, modes: list[bool], where: str) -> Iterator[tuple[str, int] | float]:
        """Keras 3's arguments by name: those that are null change nothing."""
        left: dict[str, object] = {}
        for name, value in arguments.items() if isinstance(arguments, Mapping) else ():
            if name == "training" and isinstance(value, bool):
                modes.append(value)
            elif name != "mask" and isinstance(value, list | Mapping | int | float) and not isinstance(value, bool):
                yield from self._arguments(value, path(where, name))
            else:
                left[name] = value
        self._plain(left if isinstance(arguments, Mapping) else arguments, where)

    def _operands(self, value: object, modes: list[bool], where: str) -> Iterator[tuple[str, int] | float]:
        """What Keras 2 writes: `["layer", which call, which of its outputs, {arguments}]`."""
        arguments = value[3] if isinstance(value, list) and len(value) == 4 else None
        if isinstance(value, list) and len(value) == 4 and value[0] == _CONSTANT and type(value[2]) in (int, float):
            yield float(value[2])
        else:
            reference = self._reference(value, where)
            if reference:
                yield reference
        if not isinstance(arguments, Mapping):
            self._plain(arguments, where)
            return
        left = dict(arguments)
        if isinstance(left.get("training"), bool):
            modes.append(left.pop("training"))
        for name in _OPERANDS:
            operand = left.get(name)
            if type(operand) in (int, float):
                yield float(left.pop(name))
            elif isinstance(operand, list):
                reference = self._reference(left.pop(name), where)
                if reference:
                    yield reference
        self._plain(left, where)

    def _reference(self, value: object, where: str) -> Reference:
        if not isinstance(value, list) or len(value) not in (3, 4) or not isinstance(value[0], str):
            self.problem(where, f"{shown(value)} is not the output of a layer", '["layer", 0, 0]')
            return None
        name, call, tensor = value[:3]
        if name not in self.place:
            remedy = nearest(name, list(self.place))
            if not remedy and not any(isinstance(entry.content, InputLayer) for entry in self.entries):
                layer = f'{{"class_name": "InputLayer", "config": {{"name": {shown(name)}}}}}'
                remedy = f'if it is the input, put {layer} before the first layer, or leave out "inbound_nodes" there'
            self.problem(where, f"there is no layer {shown(name)}", remedy=remedy)
        elif type(call) is not int or call < 0:
            self.problem(where, f"{shown(call)} is not a call of {shown(name)}", "0, 1, ...")
        elif type(tensor) is not int or tensor != 0:
            self.problem(where, f"{shown(tensor)} is not an output of {shown(name)}, which has one", "0")
        else:
            return name, call
        return None

    def _plain(self, arguments: object, where: str) -> None:
        """A layer may be called with arguments; those that are null change nothing."""
        if arguments is None or (isinstance(arguments, Mapping) and all(v is None for v in arguments.values())):
            return
        self.problem(where, f"a call with the arguments {shown(arguments)} is not available", '{}, {"training": false}')

    def check_inputs(self, declared: object) -> None:
        inputs = [entry for entry in self.entries if isinstance(entry.content, InputLayer)]
        names = [name for name, _ in self._ends(declared, "input_layers")]
        if len(inputs) > 1:
            listed = ", ".join(shown(entry.name) for entry in inputs)
            self.problem(self.where, f"the network has several inputs: {listed}", "one input")
        elif inputs and (set(names) - {inputs[0].name}):
            self.problem(path(self.model, "input_layers"), f"{shown(declared)} is not the input", shown(inputs[0].name))

    def declared_output(self, declared: object) -> Reference:
        outputs = list(dict.fromkeys(self._ends(declared, "output_layers")))
        if len(outputs) > 1:
            listed = ", ".join(shown(name) for name, _ in outputs)
            where = path(self.model, "output_layers")
            self.problem(where, f"the network has several outputs: {listed}", "one output")
        return outputs[0] if outputs else None

    def _ends(self, value: object, key: str) -> Iterator[tuple[str, int]]:
        """`["a", 0, 0]`, `[["a", 0, 0], ...]`, or `{"name": ["a", 0, 0], ...}`."""
        where = path(self.model, key)
        parts = list(value.values()) if isinstance(value, Mapping) else value
        if parts is None:
            return
        if not isinstance(parts, list):
            self.problem(where, f"{shown(value)} does not fit", '[["layer", 0, 0]]')
            return
        for part in [parts] if parts and isinstance(parts[0], str) else parts:
            reference = self._reference(part, where)
            if reference:
                yield reference

    def resolve(self, calls: list[list[Wire]], output: Reference) -> tuple[list[Node], int | None]:
        """References become indices of nodes, which are numbered in the file's order."""
        first = [0]
        for each in calls:
            first.append(first[-1] + len(each))
        referred = [reference for each in calls for call in each for reference in call.inputs] + [output]
        shifts = self._shifts([len(each) for each in calls], referred)

        def node(reference: Reference) -> int:
            if reference is None:
                return GIVEN
            name, call = reference
            place = self.place[name]
            index = len(calls[place]) - 1 if call == LAST else call - shifts[place]
            if not 0 <= index < len(calls[place]):
                where = path(self.entries[place].where, "inbound_nodes")
                calls_made = ", ".join(str(number + shifts[place]) for number in range(len(calls[place])))
                self.problem(where, f"{shown(name)} has no call {call}, which another layer uses", calls_made)
            return first[place] + index

        nodes = [
            Node(index, tuple(map(node, call.inputs)), call.numbers, call.training)
            for index, each in enumerate(calls)
            for call in each
        ]
        return nodes, None if output is None else node(output)

    def _shifts(self, counts: list[int], referred: list[Reference]) -> list[int]:
        """Keras counts a nested model's making as its call 0, but does not list it among the calls."""
        shifts = [0] * len(counts)
        for name, call in filter(None, referred):
            place = self.place[name]
            if isinstance(self.entries[place].content, Graph) and call >= counts[place]:
                shifts[place] = 1
        return shifts

    def ordered(self, nodes: list[Node], output: int | None) -> tuple[tuple[Node, ...], int]:
        """A topological order that stays as near to the file's as can be (Kahn's algorithm)."""
        users: list[list[int]] = [[] for _ in nodes]
        waits = [0] * len(nodes)
        for index, node in enumerate(nodes):
            for source in set(node.inputs) - {GIVEN}:
                users[source].append(index)
                waits[index] += 1
        ready = [index for index, count in enumerate(waits) if not count]
        order: list[int] = []
        while ready:
            index = heapq.heappop(ready)
            order.append(index)
            for user in users[index]:
                waits[user] -= 1
                if not waits[user]:
                    heapq.heappush(ready, user)
        if len(order) < len(nodes):
            circle = self._names(nodes, [index for index, count in enumerate(waits) if count])
            self.problem(self.where, f"these layers wait for each other: {circle}")
            self.stop()
        ends = [index for index in order if not users[index] and index != output]
        if output is None and len(ends) == 1:
            output = ends.pop()
        if output is None or ends:
            listed = self._names(nodes, [*([] if output is None else [output]), *ends])
            remedy = 'join them, or leave out what leads nowhere: "inbound_nodes" names what feeds a layer'
            self.problem(self.where, f"the network has several outputs: {listed}", "one output", remedy)
            self.stop()
        rank = {index: number for number, index in enumerate(order)} | {GIVEN: GIVEN}
        moved = (replace(nodes[index], inputs=tuple(rank[source] for source in nodes[index].inputs)) for index in order)
        return tuple(moved), rank[output if output is not None else order[-1]]

    def _names(self, nodes: list[Node], indices: list[int]) -> str:
        return ", ".join(dict.fromkeys(shown(self.entries[nodes[index].entry].name) for index in indices))
