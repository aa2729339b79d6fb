"""Write `reference.md` from the models of the run file: `make docs`."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel
from pydantic.fields import FieldInfo

from rml_core import apps, data, layers, loss, lr_scheduler, optimizer, transforms
from rml_core.checkpoints import FORMATS, Checkpoints
from rml_core.config.problem import listed
from rml_core.data.table import LATER_KEYS
from rml_core.layers.activations import ACTIVATIONS, ALIASES
from rml_core.layers.initializers import INITIALIZERS, Initializer
from rml_core.layers.regularizers import REGULARIZERS, Regularizer
from rml_core.run import EarlyStopping, RunFile
from rml_core.slicers.section import SliceSection

PAGE = Path(__file__).with_name("reference.md")
# Examples of keys that neither the models nor their defaults give: by heading and key, a part of the section.
EXAMPLES: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("key_examples.json").read_text())

# Keys whose values have a heading of their own.
LINKS = {
    "layers": "[list, object or path](#layers)",
    "data": "[object](#data)",
    "optimizer": "[object](#optimizer)",
    "lr_scheduler": "[object](#scheduler)",
    "loss": "[object](#loss)",
    "checkpoints": "[object](#checkpoints)",
    "early_stopping": "[object](#early-stopping)",
    "transforms": "list of [transforms](#transforms)",
    "input_transforms": "list of [transforms](#transforms)",
    "target_transforms": "list of [transforms](#transforms)",
    "slicers": "list of [slice sets](#slicers)",
    "activation": "an [activation](#activations)",
}

# Models that are a name or an object, and have a heading of their own.
OBJECTS = {
    Initializer.__name__: "an [initialiser](#initialisers)",
    Regularizer.__name__: "a [regulariser](#regularisers)",
}

HEAD = """\
# Reference of the run file

<!-- Written by docs/make_reference.py from the models: change the models, then `make docs`. -->

A run file is one JSON object, `{"neural_network": {...}}`. Names of types, functions, transforms, layers and
activations may be written in any case; a key that is not in these tables is an error. Paths are against the run file's
folder; `~` and environment variables expand. Each key has an example, with what it needs beside it; the example of a
section shows what is required and a few keys that are often set.
`rml schema` prints the same as JSON schema, for editors.
"""

LAYERS_HEAD = """\
`layers` is a list of Keras layers, a Keras model as `model.to_json()` of Keras 2 or 3 writes it (`Sequential`,
`Functional`, `Model`), or the path of a JSON file with either, or of a whole model that Keras saved (`.h5`, `.keras`;
[From Keras](keras.md)). A layer is `{"class_name": ..., "config": {...}}`; in a
list it takes the output of the layer before it, unless `inbound_nodes` names others as `[[["layer", 0, 0], ...]]`.
Shapes are Keras's: channels last, without the batch. Nested models and layers that are used several times work; a
network has one input and one output. Here `a` goes to `b` and, past it, to their sum:
"""


SKIP = {
    "layers": [
        {"class_name": "Conv2D", "config": {"name": "a", "filters": 8, "kernel_size": 3, "padding": "same"}},
        {"class_name": "Conv2D", "config": {"name": "b", "filters": 8, "kernel_size": 3, "padding": "same"}},
        {"class_name": "Add", "config": {"name": "sum"}, "inbound_nodes": [[["a", 0, 0], ["b", 0, 0]]]},
        {"class_name": "GlobalAveragePooling2D", "config": {"name": "mean"}},
        {"class_name": "Dense", "config": {"name": "class", "units": 2, "activation": "log_softmax"}},
    ]
}


def text() -> str:
    """The whole page."""
    parts = [
        HEAD,
        section("Run", RunFile, "What stands under `neural_network`."),
        f"`app`, the flow's other parameter (`rml run --app`): {listed(apps.APPS)}. {not_yet(apps.LATER)}",
        "### Early stopping\n",
        section("", EarlyStopping, "", inside="early_stopping"),
        section("Data", data.Data, "", inside="data"),
        "### Data types\n",
        table(("type", "meaning", "example"), map(data_type, data.DATA_TYPES.items())),
        not_yet((*data.LATER, *(f"`{key}`" for key in LATER_KEYS))),
        "### Slicers\n",
        f"Members of `slicers`. {sentence(SliceSection)}\n",
        keys(SliceSection, "slicers"),
        fence({"data": {"type": "numpy", "test_input_path": "volume.npy", "slicers": [example(SliceSection)]}}),
        "### Transforms\n",
        "Members of `transforms`, `input_transforms` and `target_transforms`, applied in their order.\n",
        table(("transform", "type", "value", "meaning", "example"), map(transform, transforms.TRANSFORMS.values())),
        *(f"Keys of `{name}`:\n\n{keys(model, name)}" for name, model in objects(transforms.TRANSFORMS)),
        not_yet(transforms.LATER),
        "## Layers\n",
        LAYERS_HEAD,
        fence(SKIP),
        table(("class", "meaning", "keys of `config`", "example"), map(layer, layers.LAYERS.items())),
        "### Keys of layers\n",
        "Every layer takes these:\n",
        keys(layers.LayerSection, "layers"),
        "The others:\n",
        table(("key", "layers", "type", "default", "meaning", "example"), layer_keys()),
        "What else Keras writes is accepted where it changes nothing, and refused where it would change the numbers: "
        f"{listed(f'`{key}`' for key in sorted(silent_keys()))}.\n",
        "### Activations\n",
        listed(f"`{name}`" for name in ACTIVATIONS)
        + "; "
        + listed(f"`{alias}` is `{name}`" for alias, name in ALIASES.items())
        + ".\n",
        "### Initialisers\n",
        'By name, `"he_normal"`, or as Keras writes them, `{"class_name": "HeNormal", "config": {}}`. '
        "Numbers are drawn from the run's `seed`.\n",
        table(("initialiser", "keys of `config` (default)"), map(initialiser, INITIALIZERS.items())),
        "### Regularisers\n",
        'By name, `"l2"`, or as Keras writes them, `{"class_name": "L2", "config": {"l2": 0.01}}`. They are part of '
        "the loss that is minimised and logged, in training and in evaluation, as Keras reports it.\n",
        table(
            ("regulariser", "adds to the loss", "keys of `config` (default)"), map(regulariser, REGULARIZERS.items())
        ),
        family("Optimizer", optimizer.OPTIMIZERS, optimizer.OptimizerSection, "type", optimizer.LATER),
        family("Scheduler", lr_scheduler.SCHEDULERS, lr_scheduler.SchedulerSection, "type", ()),
        family("Loss", loss.LOSSES, loss.LossSection, "function", loss.LATER),
        section("Checkpoints", Checkpoints, "", inside="checkpoints"),
        f"`load` reads {listed(each.name for each in FORMATS)}.",
    ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def section(title: str, model: type[BaseModel], said: str, inside: str = "") -> str:
    """A heading, the keys, and an example in its place."""
    shown = example(model)
    lines = [f"## {title}\n"] if title else []
    lines += [f"{said or sentence(model)}\n", keys(model, inside), fence({inside: shown} if inside else shown)]
    return "\n".join(lines)


def family(
    title: str, members: Mapping[str, type[BaseModel]], base: type[BaseModel], tag: str, later: Sequence[str]
) -> str:
    """A heading, the keys that all members have, and each member's own."""
    lines = [f"## {title}\n", f"`{tag}` is one of {listed(f'[{name}](#{name.lower()})' for name in members)}.\n"]
    lines += [not_yet(later), "All of them take:\n", keys(base, title.lower(), without=(tag,))]
    for name, model in members.items():
        own = keys(model, title.lower(), without=(tag, *base.model_fields))
        lines += [f"### {name}\n", f"{sentence(model)}\n", own, f"`{compact({tag: name, **example(model)})}`\n"]
    return "\n".join(line for line in lines if line)


def data_type(item: tuple[str, Any]) -> tuple[str, ...]:
    name, kind = item
    keys = ["input_type"] * kind.as_input + ["target_type"] * (kind.beside_inputs or not kind.as_input)
    return f"`{name}`", f"{kind.meaning}.", f"`{compact(dict.fromkeys(keys, name))}`"


def transform(model: type[BaseModel]) -> tuple[str, ...]:
    ((name, field),) = model.model_fields.items()
    return f"`{name}`", kind_of(model, name), inline(field.description), sentence(model), f"`{compact(example(model))}`"


def objects(table: Mapping[str, type[BaseModel]]) -> Iterator[tuple[str, Any]]:
    """The members of a table of one-key objects whose value is an object itself, with the model of that."""
    for name, model in table.items():
        value = model.model_fields[name].annotation
        if isinstance(value, type) and issubclass(value, BaseModel):
            yield name, value


def layer(item: tuple[str, type[layers.LayerSection]]) -> tuple[str, ...]:
    name, model = item
    shown: dict[str, Any] = {"class_name": name, "config": example(model)}
    if hasattr(model, "least"):
        shown["inbound_nodes"] = [[["a", 0, 0], ["b", 0, 0]]]
    fields = sorted(documented(model).items(), key=lambda item: not item[1].is_required())
    own = listed(f"`{key}`" for key, _ in fields if key not in layers.LayerSection.model_fields)
    return f"`{name}`", sentence(model), own, f"`{compact(shown)}`"


def layer_keys() -> list[tuple[str, ...]]:
    """Each key with its layers; a key that means different things has several rows."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, model in layers.LAYERS.items():
        for key, field in documented(model).items():
            if key not in layers.LayerSection.model_fields:
                shown = f"`{compact(key_example(model, key, 'layers'))}`"
                row = (f"`{key}`", kind_of(model, key), default(field), inline(field.description), shown)
                rows.setdefault(row, []).append(name)
    return [(key, ranks(names), *rest) for (key, *rest), names in sorted(rows.items())]


def ranks(names: Iterable[str]) -> str:
    """Conv1D, Conv2D, Conv3D as Conv1D/2D/3D."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        head, rank, tail = [*re.split("([123]D)", name), "", ""][:3]
        found.setdefault((head, tail), []).append(rank)
    return listed(f"{head}{'/'.join(sizes)}{tail}" for (head, tail), sizes in found.items())


def silent_keys() -> set[str]:
    return {key for model in layers.LAYERS.values() for key in model.model_fields if key not in documented(model)}


def initialiser(item: tuple[str, type[Initializer]]) -> tuple[str, ...]:
    name, model = item
    own = [key for key in model.__annotations__ if key in model.model_fields and not key.endswith("_axes")]
    return f"`{name}`", listed(f"`{key}` {default(model.model_fields[key])}" for key in own)


def regulariser(item: tuple[str, type[Regularizer]]) -> tuple[str, ...]:
    name, model = item
    return (
        f"`{name}`",
        sentence(model),
        listed(f"`{key}` {default(field)}" for key, field in model.model_fields.items()),
    )


def keys(model: Any, heading: str, without: Sequence[str] = ()) -> str:
    """The table of a model's keys; nothing where there are none."""
    rows = []
    for key, field in documented(model).items():
        if key not in without:
            shown = f"`{compact(key_example(model, key, heading))}`"
            rows.append((spellings(key, field), kind_of(model, key), default(field), inline(field.description), shown))
    return table(("key", "type or values", "default", "meaning", "example"), rows) if rows else ""


def sections() -> Iterator[tuple[str, str, type[BaseModel]]]:
    """Every model whose keys are shown: its heading in `EXAMPLES`, its name in its table, the model."""
    yield "", "", RunFile
    yield "early_stopping", "", EarlyStopping
    yield "data", "", data.Data
    yield "slicers", "", SliceSection
    yield "checkpoints", "", Checkpoints
    for name, model in objects(transforms.TRANSFORMS):
        yield name, name, model
    families = {"optimizer": optimizer.OPTIMIZERS, "scheduler": lr_scheduler.SCHEDULERS, "loss": loss.LOSSES}
    for heading, members in ({"layers": layers.LAYERS} | families).items():
        for name, model in members.items():
            yield heading, name, model


def key_example(model: type[BaseModel], key: str, heading: str) -> dict[str, Any]:
    """The key with a value, and what else of its section it needs.

    Raises:
        LookupError: there is none.
    """
    field = model.model_fields[key]
    if field.examples:
        return {key: field.examples[0]}
    if key in EXAMPLES.get(heading, {}):
        shown: dict[str, Any] = EXAMPLES[heading][key]
        return shown
    for ending, value in (("_initializer", "he_normal"), ("_regularizer", "l2")):
        if key.endswith(ending):
            return {key: value}
    if isinstance(field.default, bool):
        return {key: not field.default}
    names = re.findall("`([^`]+)`", kind_of(model, key))
    if names:
        return {key: names[-1]}
    if field.default is None or field.is_required():
        raise LookupError(f"{model.__name__}.{key} has no example: give it one in the model or in key_examples.json")
    return {key: field.default}


def documented(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model that its source describes."""
    for key, words in docstrings(model).items():
        if key in model.model_fields:
            model.model_fields[key].description = words
    return {key: field for key, field in model.model_fields.items() if field.description}


@cache
def docstrings(model: type) -> dict[str, str]:
    """What stands below the fields of a class, and of those that it inherits from, in their source."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each.__module__.startswith("rml_core"):
            body = classes(each.__module__)[each.__qualname__].body
            for field, below in pairwise(body):
                if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                    found[ast.unparse(field.target)] = ast.literal_eval(below.value)
    return found


@cache
def classes(module: str) -> dict[str, ast.ClassDef]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def spellings(key: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    names = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [key]
    return " or ".join(f"`{name}`" for name in names)


def kind_of(model: type[BaseModel], key: str) -> str:
    if key in LINKS:
        return LINKS[key]
    alias = model.model_fields[key].validation_alias
    name = str(alias.choices[0]) if isinstance(alias, AliasChoices) else key
    return kind(model.model_json_schema()["properties"][name])


def kind(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return OBJECTS.get(name, "object")
    if "enum" in schema:
        return listed(f"`{name}`" for name in schema["enum"])
    members = schema.get("anyOf") or schema.get("oneOf")
    if members:
        # Names in any case are published as their list and as a pattern; none goes without saying.
        named = [member for member in members if "enum" in member]
        words = (kind(member) for member in named or members if member.get("type") != "null")
        return " or ".join(dict.fromkeys(words))
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return f"[{listed(kind(item) for item in schema['prefixItems'])}]"
        return "list of " + re.sub("^(integer|number)", r"\1s", kind(schema["items"]))
    limits = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    bounds = [f"{sign} {schema[name]:g}" for name, sign in limits if name in schema]
    return " ".join([{"boolean": "true, false"}.get(schema["type"], schema["type"]), listed(bounds)]).strip()


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, Initializer):
        return next(f"`{name}`" for name, model in INITIALIZERS.items() if type(value) is model)
    return f"`{json.dumps(value)}`"


def example(model: type[BaseModel]) -> dict[str, Any]:
    """The keys that the model has an example for.

    Raises:
        LookupError: a required key has none.
    """
    shown: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        if field.examples:
            shown[key] = field.examples[0]
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and model is not RunFile:
            if field.is_required():
                shown[key] = example(field.annotation)
        elif field.is_required() and key not in ("type", "function", "layers", "data"):
            raise LookupError(f"{model.__name__}.{key} is required and has no example")
    return shown


def not_yet(names: Iterable[str]) -> str:
    names = listed(names)
    return f"Not available yet: {names}.\n" if names else ""


def sentence(model: type[BaseModel]) -> str:
    return inline(model.__doc__ or next((base.__doc__ for base in model.__mro__ if base.__doc__), ""))


def inline(words: str | None) -> str:
    return " ".join((words or "").split()).replace("|", "\\|")


def compact(value: Any) -> str:
    return json.dumps(value)


def fence(value: Any) -> str:
    """A block of JSON, with a list's members a line each."""
    lines = json.dumps(value, indent=4)
    if isinstance(value, dict) and isinstance(value.get("layers"), list):
        members = ",\n".join(f"        {compact(member)}" for member in value["layers"])
        lines = f'{{\n    "layers": [\n{members}\n    ]\n}}'
    return f"```json\n{lines}\n```\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text())
