"""Layers that make one tensor of several."""

from __future__ import annotations

from typing import ClassVar

from rml_core.layers.section import LayerSection, Misfit, Run, Shape, say


class _Merge(LayerSection):
    """An elementwise operation, broadcast as Keras does: shapes are aligned at their ends."""

    operation: ClassVar[str]
    least: ClassVar[int] = 1
    most: ClassVar[int | None] = None

    def check(self, shapes: tuple[Shape, ...]) -> None:
        if len(shapes) < self.least or (self.most and len(shapes) > self.most):
            wants = f"exactly {self.most} inputs" if self.most else f"at least {self.least} inputs"
            raise Misfit(f"merges {wants}, and is given {len(shapes)}", 'name them in "inbound_nodes"')

    def output_shape(self, *shapes: Shape) -> Shape:
        merged = shapes[0]
        for shape in shapes[1:]:
            merged = _broadcast(merged, shape)
        return merged

    def fresh(self, shapes: tuple[Shape, ...]) -> bool:
        return True

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import merging

        return merging.merge(self.operation, tuple(len(shape) for shape in shapes))


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


class Average(_Merge):
    """The mean of its inputs, element by element."""

    operation = "average"


class Maximum(_Merge):
    """The largest of its inputs, element by element."""

    operation = "maximum"


class Minimum(_Merge):
    """The smallest of its inputs, element by element."""

    operation = "minimum"


class Concatenate(_Merge):
    """Its inputs one behind the other along an axis."""

    axis: int = -1
    """The axis that they are joined along, as Keras counts: 0 is the batch, -1 the channels."""

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
