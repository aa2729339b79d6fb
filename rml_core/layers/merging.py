"""Layers that make one tensor of several."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, PrivateAttr

from rml_core.config.names import OneOf
from rml_core.layers.activations import named
from rml_core.layers.section import Applied, LayerSection, Misfit, Run, Shape, say


class _Merge(LayerSection):
    """An elementwise operation, broadcast as Keras does: shapes are aligned at their ends."""

    operation: ClassVar[str]
    least: ClassVar[int] = 1
    most: ClassVar[int | None] = None
    _numbers: tuple[tuple[int, float], ...] = PrivateAttr(())

    def with_numbers(self, numbers: tuple[tuple[int, float], ...]) -> Self:
        """Keras writes `x + 3` as a call of Add on x and 3."""
        called = self.model_copy()
        called._numbers = numbers
        return called

    def check(self, shapes: tuple[Shape, ...]) -> None:
        given = len(shapes) + len(self._numbers)
        if not shapes or given < self.least or (self.most and given > self.most):
            wants = f"exactly {self.most} inputs" if self.most else f"at least {self.least} inputs"
            raise Misfit(f"merges {wants}, and is given {given}", 'name them in "inbound_nodes"')
        if self._numbers and given != 2:
            raise Misfit(f"takes one input beside a number, and is given {given - len(self._numbers)}")

    def output_shape(self, *shapes: Shape) -> Shape:
        merged = shapes[0]
        for shape in shapes[1:]:
            merged = _broadcast(merged, shape)
        return merged

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import merging

        return merging.merge(self.operation, tuple(len(shape) for shape in shapes), self._numbers)


def _broadcast(one: Shape, other: Shape) -> Shape:
    if len(one) < len(other):
        one, other = other, one
    head = one[: len(one) - len(other)]
    tail: list[int | None] = []
    for a, b in zip(one[len(head) :], other, strict=True):
        if a is None or b is None:
            # A size that is not known may be 1: only a larger known one decides.
            known = b if a is None else a
            tail.append(known if known not in (None, 1) else None)
        elif a == b or b == 1:
            tail.append(a)
        elif a == 1:
            tail.append(b)
        else:
            raise Misfit(f"its inputs {say(one)} and {say(other)} do not fit together")
    return (*head, *tail)


class Add(_Merge):
    """The sum of its inputs, element by element."""

    operation = "add"


class Subtract(_Merge):
    """The first of two inputs minus the second."""

    operation, least, most = "subtract", 2, 2


class Multiply(_Merge):
    """The product of its inputs, element by element."""

    operation = "multiply"


class Divide(_Merge):
    """The first of two inputs divided by the second: what Keras 3 writes for `x / y`."""

    operation, least, most = "divide", 2, 2


class Average(_Merge):
    """The mean of its inputs, element by element."""

    operation = "average"


class Maximum(_Merge):
    """The largest of its inputs, element by element."""

    operation = "maximum"


class Minimum(_Merge):
    """The smallest of its inputs, element by element."""

    operation = "minimum"


class CustomScaleLayer(_Merge):
    """The first of two inputs and `scale` times the second (InceptionResNetV2 of `keras.applications`)."""

    operation, least, most = "add_scaled", 2, 2

    scale: float = Field(examples=[0.17])
    """What the second input is multiplied by."""

    def with_numbers(self, numbers: tuple[tuple[int, float], ...]) -> Self:
        return super(_Merge, self).with_numbers(numbers)

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import merging

        return merging.add_scaled(tuple(len(shape) for shape in shapes), self.scale)


# TensorFlow's functions that Keras 2 writes as layers: what computes them here, an operation or an activation.
OPERATIONS = {
    "__operators__.add": "add",
    "math.add": "add",
    "math.subtract": "subtract",
    "math.multiply": "multiply",
    "math.truediv": "divide",
    "math.divide": "divide",
    "math.maximum": "maximum",
    "math.minimum": "minimum",
    "identity": "linear",
    "nn.relu": "relu",
    "nn.relu6": "relu6",
    "nn.elu": "elu",
    "nn.selu": "selu",
    "nn.silu": "silu",
    "nn.softmax": "softmax",
    "nn.softplus": "softplus",
    "nn.log_softmax": "log_softmax",
    "nn.sigmoid": "sigmoid",
    "math.sigmoid": "sigmoid",
    "math.tanh": "tanh",
    "math.exp": "exponential",
}
_PAIRWISE = ("add", "subtract", "multiply", "divide", "maximum", "minimum")


class TFOpLambda(_Merge):
    """A function of TensorFlow in the place of a layer, as Keras 2 writes `x + 3`."""

    function: Annotated[str, OneOf("function", *OPERATIONS)] = Field(examples=["math.multiply"])
    """Which one."""

    @property
    def applied(self) -> Applied:
        name = OPERATIONS[self.function]
        return Applied() if name in _PAIRWISE else named(name)

    def check(self, shapes: tuple[Shape, ...]) -> None:
        given, wanted = len(shapes) + len(self._numbers), 1 + (OPERATIONS[self.function] in _PAIRWISE)
        if not shapes or given != wanted:
            raise Misfit(f"{self.function} takes {wanted} input{'s'[: wanted - 1]}, and is given {given}")

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import merging

        name = OPERATIONS[self.function]
        if name not in _PAIRWISE:
            return None
        return merging.merge(name, tuple(len(shape) for shape in shapes), self._numbers)

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return OPERATIONS[self.function] in _PAIRWISE


class Concatenate(_Merge):
    """Its inputs one behind the other along an axis."""

    axis: int = -1
    """The axis that they are joined along, as Keras counts: 0 is the batch, -1 the channels."""

    def with_numbers(self, numbers: tuple[tuple[int, float], ...]) -> Self:
        return super(_Merge, self).with_numbers(numbers)

    def output_shape(self, *shapes: Shape) -> Shape:
        first = shapes[0]
        if any(len(shape) != len(first) for shape in shapes):
            raise Misfit(f"its inputs {' and '.join(map(say, shapes))} differ in their number of axes")
        place = self._place(first)
        for shape in shapes[1:]:
            for axis, (a, b) in enumerate(zip(first, shape, strict=True)):
                if axis != place and a is not None and b is not None and a != b:
                    raise Misfit(
                        f"its inputs {say(first)} and {say(shape)} differ in more than the axis it joins, {self.axis}",
                        "sizes that are divisible by all the strides before, or cropping or padding",
                    )
        joined = [shape[place] for shape in shapes]
        total = None if None in joined else sum(size for size in joined if size is not None)
        known = [next((s[axis] for s in shapes if s[axis] is not None), None) for axis in range(len(first))]
        return (*known[:place], total, *known[place + 1 :])

    def _place(self, shape: Shape) -> int:
        """The axis among the sample's own."""
        size = len(shape) + 1
        if not -size <= self.axis < size or self.axis % size == 0:
            raise Misfit(f"axis {self.axis} is not one of the axes of its input {say(shape)}")
        return self.axis % size - 1

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import merging

        place = self._place(shapes[0])
        return merging.concatenate(1 if place == len(shapes[0]) - 1 else place + 2)
