"""Files of Keras 3: `.weights.h5`, and the archive `.keras` with such a file beside the network's JSON; the last
versions of Keras 2 write them too.

A layer's weights are `layers/<class>_<number>/vars/0`, `1`, ...: its class in snake case, numbered among the model's
layers of that class from the second one on; a nested model's layers lie in `layers/<class>_<number>/layers`. Since 3.8
the attribute `name` of `vars` is the layer's name. Keras 2.12 and 2.13 call the folder
`_layer_checkpoint_dependencies` and count every layer with weights twice.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rml_core.checkpoints.content import damaged, is_whole
from rml_core.checkpoints.hdf5 import Value, hdf5, tensor, text
from rml_core.checkpoints.stored import Held, Outline, Stored
from rml_core.config import roots

CONTAINERS = ("layers", "_layer_checkpoint_dependencies")

Key = tuple[str, ...]


def read(path: Path, where: str, value: Value = tensor) -> Stored:
    """The layers with weights of a `.weights.h5`; without names where an earlier version of Keras wrote it. `value`
    reads one of them.

    Raises:
        Refused: it is cut short or damaged.
    """
    with roots.opened(str(path)) as source, hdf5(source, path, where) as file:
        return Stored(tuple(_held(file, (), (), value)), 3)


def read_archive(path: Path, where: str, value: Value = tensor) -> Stored:
    """The layers with weights of a `.keras` file, named by the JSON in it.

    Raises:
        Refused: it is cut short or damaged.
    """
    if not is_whole(path):
        raise damaged(path, where)
    with roots.opened(str(path)) as file, zipfile.ZipFile(file) as archive:
        try:
            outlines = outlines_of(json.loads(archive.read("config.json")))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise damaged(path, where) from None
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with hdf5(weights, path, where) as root:
        return Stored(named(tuple(_held(root, (), (), value)), outlines), 3)


def named(held: Sequence[Held], outlines: Iterable[Outline]) -> tuple[Held, ...]:
    """`held` with the names of the network of which `outlines` are the entries, without those that it does not have."""
    paths = dict(_paths(outlines, (), ()))
    found = ((each, paths.get(each.place)) for each in held)
    return tuple(Held("/".join(path), path, each.weights, each.place) for each, path in found if path is not None)


def outlines_of(model: Any) -> tuple[Outline, ...]:
    """The entries of a model in Keras's JSON. Raises `KeyError` or `TypeError` where it is none."""
    config = model["config"]
    entries = config["layers"] if isinstance(config, dict) else config
    return tuple(_outline(entry) for entry in entries)


def _outline(entry: Any) -> Outline:
    config = entry["config"]
    nested = isinstance(config, list) or "layers" in config
    name = entry.get("name") or config["name"]
    return Outline(str(name), str(entry["class_name"]), outlines_of(entry) if nested else None)


def _held(group: Any, place: Key, names: Key, value: Value) -> Iterator[Held]:
    """The layers with weights below `group`, in the order of their folders' names."""
    for container in CONTAINERS:
        for folder, number in _numbered(container, group.get(container, {})).items():
            layer = group[container][folder]
            variables = layer.get("vars")
            told = variables is not None and "name" in variables.attrs and (names or not place)
            path = (*names, text(variables.attrs["name"])) if told else ()
            below = (*place, number)
            if variables is not None and len(variables):
                weights = tuple((each, value(variables, each)) for each in sorted(variables, key=_as_counted))
                yield Held("/".join(path or below), path, weights, below)
            yield from _held(layer, below, path, value)
        if container in group:
            return


def _as_counted(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else 0, name)


def _numbered(container: str, folders: Iterable[str]) -> dict[str, str]:
    """Folders with their numbers in `layers`."""
    if container == "layers":
        return {folder: folder for folder in folders}
    classes: dict[str, list[tuple[int, str]]] = {}
    for folder in folders:
        stem, _, number = folder.rpartition("_")
        stem, number = (stem, number) if number.isdecimal() else (folder, "0")
        classes.setdefault(stem, []).append((int(number), folder))
    return {
        folder: _folder(stem, count)
        for stem, members in classes.items()
        for count, (_, folder) in enumerate(sorted(members))
    }


def _folder(stem: str, count: int) -> str:
    return f"{stem}_{count}" if count else stem


def _paths(outlines: Iterable[Outline], place: Key, names: Key) -> Iterator[tuple[Key, Key]]:
    """Place and path of every layer."""
    counts: dict[str, int] = {}
    for outline in outlines:
        stem = snake_case("Functional" if outline.class_name == "Model" else outline.class_name)
        count = counts.get(stem, 0)
        counts[stem] = count + 1
        below, path = (*place, _folder(stem, count)), (*names, outline.name)
        if outline.inside is None:
            yield below, path
        else:
            yield from _paths(outline.inside, below, path)


def snake_case(class_name: str) -> str:
    """`Conv2DTranspose` is `conv2d_transpose`, `ReLU` is `re_lu`, as Keras has it."""
    split = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", class_name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", split).lower()
