"""A network for other programs: as what torch alone runs, and as ONNX.

torch.export, and not TorchScript, which torch has deprecated: an exported program knows which sizes it holds for, where
a trace keeps what its example led to without a word.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from rml_core.config.problem import Refused, RunFailed
from rml_core.layers.build import build
from rml_core.layers.graph import Graph, Network, infer
from rml_core.layers.section import Shape

INPUT, OUTPUT = "input", "output"
# Names of axes whose size is open, behind the batch and the channels.
AXES: dict[int, tuple[str, ...]] = {0: (), 1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
# Sizes that an open axis is tried with, where no samples say one: networks with several poolings take multiples.
SIZES = (64, 128, 256, 32, 96, 224, 299, 512, 572, 16, 8)
# Open sizes are looked for in steps up to this one: a network of six poolings takes multiples of 64.
LARGEST_STEP = 64
# So far apart may the outputs of a network and of what is made of it be, in parts of the largest number.
TOLERANCE = 1e-5
# protobuf's messages are no longer; a little is not weights.
LARGEST_ONNX = 2**31 - 2**20


@dataclass(frozen=True)
class Exported:
    """A network in evaluation mode and float32, as a torch.export program.

    `input_shape`, `output_shape`: channels first, the batch first; an axis is a size or the name of one that is open.
    `sizes`: which sizes the open axes may have, where not every one does: "height and width: multiples of 8".
    """

    program: Any
    network: Network
    example: Tensor
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]
    sizes: str = ""


def exported(graph: Graph, weights: Mapping[str, Tensor], sample_shape: Shape | None) -> Exported:
    """The network of `graph` with `weights`, for any batch and, where it takes samples of any size, any size.

    `sample_shape`: (C, *spatial) of the samples that it was trained on; None: not known.

    Raises:
        Refused: the graph says no shape of its input, and there is no other to go by.
        RunFailed: torch cannot follow the network, or what it makes of it gives other numbers.
    """
    network = _with_open_sizes(graph, sample_shape)
    tried = [network]
    if None in network.input_shape:
        tried.append(infer(graph, _example_shape(graph, network, sample_shape)))
    for number, each in enumerate(tried):
        module = build(each, 0)
        module.load_state_dict(weights)
        module.requires_grad_(False).eval()
        example = torch.randn(2, *_example_shape(graph, each, sample_shape), generator=torch.Generator().manual_seed(0))
        # What a layer computes once and keeps has to be made of numbers, before there are symbols.
        module(example)
        try:
            made = _program(module, each, example)
        except Exception as error:
            # torch has many exceptions for what it cannot follow; the sizes of the samples are the simpler task.
            if number + 1 == len(tried):
                raise RunFailed(f"torch cannot export this network: {_first_line(error)}") from error
            continue
        _compare(module, made, graph)
        return _with_names(made, graph)
    raise AssertionError


def as_torch(made: Exported, texts: Mapping[str, str]) -> bytes:
    """The `.pt2` file: `torch.export.load(FILE).module()` is the network. `texts`: files put beside it."""
    file = BytesIO()
    with _quiet():
        torch.export.save(made.program, file, extra_files=dict(texts))
    return file.getvalue()


def as_onnx(made: Exported, texts: Mapping[str, str]) -> tuple[bytes, int]:
    """The ONNX file, and the version of its operators. `texts`: its metadata.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        RunFailed: an operator has no counterpart.
    """
    if sum(values.nbytes for values in made.program.state_dict.values()) > LARGEST_ONNX:
        raise RunFailed("the network is larger than an ONNX file can be, 2 GB: export it for torch")
    import onnx
    import onnxscript  # noqa: F401

    with _quiet():
        try:
            converted = torch.onnx.export(
                made.program, (made.example,), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT]
            )
        except Exception as error:
            raise RunFailed(f"torch cannot write this network as ONNX: {_first_line(error)}") from error
    assert converted is not None
    model = converted.model_proto
    names = _names_of_open_axes(model.graph.input[0], made.input_shape)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]
    for axis, name in zip(model.graph.output[0].type.tensor_type.shape.dim, made.output_shape, strict=True):
        if isinstance(name, str):
            axis.dim_param = name
    onnx.helper.set_model_props(model, dict(texts))
    onnx.checker.check_model(model)
    return model.SerializeToString(), max(each.version for each in model.opset_import if each.domain == "")


def _names_of_open_axes(value: Any, shape: tuple[int | str, ...]) -> dict[str, str]:
    axes = value.type.tensor_type.shape.dim
    return {axis.dim_param: name for axis, name in zip(axes, shape, strict=True) if isinstance(name, str)}


def _with_open_sizes(graph: Graph, sample_shape: Shape | None) -> Network:
    """With the sizes that the file leaves open; with all of them where it says none and no layer needs them."""
    if graph.input_shape is not None:
        return infer(graph, None)
    if sample_shape is None:
        return infer(graph, None)
    try:
        return infer(graph, (sample_shape[0], *[None] * (len(sample_shape) - 1)))
    except Refused:
        return infer(graph, sample_shape)


def _example_shape(graph: Graph, network: Network, sample_shape: Shape | None) -> tuple[int, ...]:
    """Sizes that the network takes: the samples' own, else the first of `SIZES` that goes through."""
    channels, *spatial = network.input_shape
    if sample_shape is not None:
        spatial = [given if size is None else size for size, given in zip(spatial, sample_shape[1:], strict=True)]
    for size in SIZES:
        shape = (channels, *(size if each is None else each for each in spatial))
        try:
            infer(graph, shape)
        except Refused:
            continue
        return tuple(int(each or 1) for each in shape)
    raise RunFailed("no size of samples was found that the network takes")


def _program(module: nn.Module, network: Network, example: Tensor) -> Exported:
    # A size that torch finds to be bound stays what it is in the example, but for the batch's.
    open_axes: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    open_axes |= {axis: torch.export.Dim.AUTO for axis, size in enumerate(network.input_shape, 1) if size is None}
    with _quiet():
        program = torch.export.export(module, (example,), dynamic_shapes=(open_axes,), strict=False)
    (given,) = (node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs)
    (result,) = next(node for node in program.graph.nodes if node.op == "output").args[0]
    names = ("batch", "channels", *AXES.get(example.dim() - 2, ()))
    input_shape, named = [], {}
    for axis, size in enumerate(given.meta["val"].shape):
        name = names[axis] if axis < len(names) else f"axis_{axis}"
        named[str(size)] = name
        input_shape.append(int(size) if str(size).isdecimal() else name)
    return Exported(
        program,
        network,
        example,
        tuple(input_shape),
        tuple(int(str(size)) if str(size).isdecimal() else _spelled(size, named) for size in result.meta["val"].shape),
    )


def _with_names(made: Exported, graph: Graph) -> Exported:
    """With the steps of open sizes, and output axes said by those of the input: `height//2`.

    Shapes are worked out without torch: its guards know of no multiples, and its expressions keep the way that a size
    has come, `2*(((height - 1)//2)) + 2`.
    """
    example = tuple(made.example.shape[1:])
    rules, told = {}, list(made.output_shape)
    for axis, name in enumerate(made.input_shape[2:], 1):
        if not isinstance(name, str):
            continue
        step = _step(graph, example, axis)
        if step > 1:
            over = example[axis] % step
            rules[name] = f"{over} more than a multiple of {step}" if over else f"multiples of {step}"
        tried = [_moved(example, axis, step * count) for count in range(4)]
        outputs = [infer(graph, shape).output_shape for shape in tried]
        for place, sizes in enumerate(zip(*outputs, strict=True), 1):
            if isinstance(told[place], str) and len(set(sizes)) > 1:
                told[place] = _as_of(name, [shape[axis] for shape in tried], sizes, str(made.output_shape[place]))
    groups: dict[str, list[str]] = {}
    for name, rule in rules.items():
        groups.setdefault(rule, []).append(name)
    said = "; ".join(f"{' and '.join(names)}: {rule}" for rule, names in groups.items())
    return replace(made, output_shape=tuple(told), sizes=said)


def _moved(shape: tuple[int, ...], axis: int, by: int) -> tuple[int, ...]:
    return (*shape[:axis], shape[axis] + by, *shape[axis + 1 :])


def _step(graph: Graph, example: tuple[int, ...], axis: int) -> int:
    """The least that a size can grow by, again and again."""

    def goes(shape: tuple[int, ...]) -> bool:
        try:
            infer(graph, shape)
        except Refused:
            return False
        return True

    steps = range(1, LARGEST_STEP + 1)
    return next((step for step in steps if all(goes(_moved(example, axis, step * n)) for n in (1, 2, 3))), 1)


def _as_of(name: str, given: Sequence[int], got: Sequence[int | None], otherwise: str) -> str:
    """A word for sizes `got` where the axis `name` has those `given`: torch's own where it is as short."""
    for size, first in zip(given, got, strict=True):
        for times in {1, (first or 0) // size, size // (first or 1)} - {0}:
            ways = {
                name: list(given),
                f"{times}*{name}": [times * each for each in given],
                f"{name}//{times}": [each // times for each in given],
                f"ceil({name}/{times})": [-(-each // times) for each in given],
            }
            for way, sizes in ways.items():
                if sizes == list(got):
                    return way
    return otherwise if len(otherwise) <= 2 * len(name) + 4 else f"output_{name}"


def _spelled(size: Any, named: Mapping[str, str]) -> str:
    """An expression of torch's symbols in the axes' names: `2*height`."""
    text = str(size)
    for symbol, name in sorted(named.items(), key=lambda entry: -len(entry[0])):
        if not symbol.isdecimal():
            text = text.replace(symbol, name)
    return text


def _compare(module: nn.Module, made: Exported, graph: Graph) -> None:
    """Raises `RunFailed` where the program gives other numbers than the network: alone, as a batch, at other sizes."""
    program = made.program.module()
    generator = torch.Generator().manual_seed(1)
    shape = tuple(made.example.shape[1:])
    doubled = tuple(
        size * 2 if isinstance(name, str) else size for size, name in zip(shape, made.input_shape[1:], strict=True)
    )
    for batch, sample in itertools.product((1, 3), dict.fromkeys((shape, doubled))):
        if sample != shape:
            try:
                infer(graph, sample)
            except Refused:
                continue
        x = torch.randn(batch, *sample, generator=generator)
        ours, theirs = module(x), program(x)
        largest = max(1.0, float(ours.nan_to_num(0, 0, 0).abs().max())) if ours.numel() else 1.0
        if not torch.allclose(theirs, ours, rtol=0, atol=TOLERANCE * largest, equal_nan=True):
            raise RunFailed("what torch exports gives other numbers than the network")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says to those who work on it."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
