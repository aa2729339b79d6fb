"""Whether a loss can compare a network's output with the targets, told from their shapes before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rml_core.config.problem import Problem, Refused, listed
from rml_core.config.target import Target
from rml_core.loss.section import Fitted, LossSection, Shape, shape_text

# So many names of classes a message has at most.
SHOWN = 10

# What the last layer's activation gives, by its Keras name; other activations give nothing a loss can rely on.
GIVEN_BY = {
    "linear": "logits",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "hard_sigmoid": "sigmoid",
}

# What no weight changes: a distribution over a single class.
OF_ONE_CHANNEL = {"softmax": 1, "log_softmax": 0}


def fit(
    loss: LossSection,
    output_shape: Shape,
    target: Target,
    last_activation: str,
    where: str = "neural_network.loss",
    names: Sequence[str] = (),
) -> Fitted:
    """Hold `loss` against a network that gives `output_shape`, (C, *spatial), from `last_activation`.

    `names`: of the classes, where they have any: a class too many shows by its name.

    Raises:
        Refused: every reason why they do not go together, the shapes named.
    """
    problems = [*_shapes(loss, output_shape, target, where, names), *loss.unfit(output_shape, target, where)]
    warnings = []
    source = loss.source or GIVEN_BY.get(last_activation, "")
    if not loss.sources:
        source = loss.source or "probabilities"
    elif loss.source is None and (source in loss.sources_to_say or source not in loss.sources):
        problems.append(_unclear(loss, last_activation, where))
    elif source not in loss.sources:
        remedy = "end the network with log_softmax, or use BCE" if "sigmoid" not in loss.sources else ""
        problems.append(
            Problem(f"{where}.source", f'{loss.function} cannot use "{source}"', listed(loss.sources), remedy)
        )
    end = source if loss.sources else last_activation
    if output_shape[0] == 1 and not loss.needs_two_outputs and end in OF_ONE_CHANNEL:
        given = f"{end} over the one channel of {shape_text(output_shape)}"
        what = f"{given} gives {OF_ONE_CHANNEL[end]} whatever the network says"
        problems.append(Problem(where, what, remedy="end the network with sigmoid"))
    if problems:
        raise Refused(problems)

    if loss.sources and loss.source is not None:
        known = GIVEN_BY.get(last_activation, "logits")
        agreeing = {known, "probabilities"} if known in ("sigmoid", "softmax") else {known}
        if known != "logits" and source not in agreeing:
            warnings.append(f'{where}.source: is "{source}", but the network ends in {last_activation}')
    elif (detour := loss.detour(source, output_shape[0] or 1)) is not None:
        warnings.append(
            f'{where}: {loss.function} after {last_activation}: {detour} ("source": "{source}" says that this is meant)'
        )
    if target.classes is not None and target.kind != "values" and (output_shape[0] or 1) > max(target.classes, 2):
        warnings.append(f"{where}: the network has {output_shape[0]} outputs, the targets {target.classes} classes")
    return Fitted(source, tuple(warnings))


def _unclear(loss: LossSection, last_activation: str, where: str) -> Problem:
    wants = "log-probabilities" if loss.needs_two_outputs else "probabilities or logits"
    end = "log_softmax" if loss.needs_two_outputs else "sigmoid or softmax"
    say = f'"source": "{loss.sources_to_say[0]}"' if last_activation == "linear" else 'with "source" what it gives'
    return Problem(
        where,
        f"{loss.function} takes {wants}, and the network ends in {last_activation}",
        remedy=f"end the network with {end}, or say {say}",
    )


def _shapes(
    loss: LossSection, output_shape: Shape, target: Target, where: str, names: Sequence[str]
) -> Iterator[Problem]:
    outputs, spatial = output_shape[0], output_shape[1:]
    given, values = f"the network's output {shape_text(output_shape)}", f"values {shape_text(target.shape)}"
    if target.kind not in loss.target_kinds:
        yield Problem(
            where,
            f"{loss.function} compares {given} with a class index, and the targets are {values}",
            remedy='use labels, or masks with "target_is_mask": true; or another loss, MSE for example',
        )
        return
    if target.kind == "values":
        if not _same(output_shape, target.shape):
            yield Problem(
                where,
                f"{loss.function} cannot compare {given} with the targets {shape_text(target.shape)}",
                remedy=f"make the last layer give {shape_text(target.shape)}",
            )
        return
    a_sample = target.kind == "labels"
    named = "" if target.classes is None else f" of {target.classes}"
    each = (
        "a sample" if a_sample else f"a {'voxel' if len(target.shape) == 3 else 'pixel'} of {shape_text(target.shape)}"
    )
    said = f"the targets, one class{named} {each}"
    if not _same(spatial, () if a_sample else target.shape):
        remedy = f"let the last layer's height, width and so on be {shape_text(target.shape)}"
        if a_sample:
            remedy = "end the network with Flatten or a global pooling, and a Dense layer"
        yield Problem(where, f"{loss.function} cannot compare {given} with {said}", remedy=remedy)
    if outputs == 1 and loss.needs_two_outputs:
        yield Problem(
            where,
            f"{loss.function} takes an output for each class: {given} has one, against {said}",
            remedy=f"end the network with {max(target.classes or 2, 2)} outputs and log_softmax, or use BCE",
        )
    elif target.classes is not None and target.classes > max(outputs or target.classes, 2):
        yield Problem(
            where,
            f"{loss.function} takes an output for each class: {given} has {outputs}, against {said}",
            remedy=f"end the network with {target.classes} outputs{_if_these(names)}",
        )


def _if_these(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f", if these are the classes: {listed(names[:SHOWN])}{more}"


def _same(given: Shape, wanted: Shape) -> bool:
    return len(given) == len(wanted) and all(
        a == b or a is None or b is None for a, b in zip(given, wanted, strict=True)
    )
