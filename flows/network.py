"""`rml network`: the layers of a network, as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rml_core.config.paths import folder_of, is_url
from rml_core.config.problem import Refused
from rml_core.layers import keras_json
from rml_core.layers.graph import Network, infer
from rml_core.run import ROOT, read_json

# How the files end that hold a network, but are no JSON.
SAVED = (".h5", ".hdf5", ".keras")


def described(file: str) -> Network:
    """The network of a run file, of a Keras JSON file or of a whole model that Keras saved, with the shapes that can be
    known without data.

    Raises:
        Refused: with every problem of the network; those of other sections are not looked for.
    """
    content = file if file.endswith(SAVED) or Path(file, "saved_model.pb").exists() else read_json(file)
    if isinstance(content, Mapping) and isinstance(content.get(ROOT), Mapping):
        section = content[ROOT]
        graph = keras_json.read(section.get("layers"), f"{ROOT}.layers", folder_of(file))
        try:
            return infer(graph, None)
        except Refused:
            return infer(graph, _sample_shape(file))
    # A name of its own, not one below the folder that names in it are against.
    source = (file if is_url(file) else str(Path(file).absolute())) if isinstance(content, str) else content
    return infer(keras_json.read(source, "", folder_of(file)), None)


def _sample_shape(file: str) -> tuple[int | None, ...] | None:
    """The shape of the run file's samples: a network that does not say its input's shape takes it from them."""
    from rml_core.check import taking
    from rml_core.data.files import ROLES
    from rml_core.data.survey import survey
    from rml_core.run import read

    run = read(file)
    for role in ROLES:
        found = survey(run.file.data, role, run.base, takes=taking(run.graph))
        if found is not None:
            return found.sample_shape
    return None


def _in_a_line(name: str) -> str:
    return name if name.isprintable() else json.dumps(name)[1:-1]


def table(network: Network) -> str:
    """One line a layer: name, class, output shape, parameters, what it is connected to; then the counts."""
    rows: list[tuple[Any, ...]] = [("layer", "class", "output shape", "parameters", "from")]
    for row in network.rows:
        shape = str((None, *row.output_shape))
        name, *inbound = map(_in_a_line, (row.name, *row.inbound))
        rows.append((name, row.class_name, shape, f"{row.parameters:,}", ", ".join(inbound)))
    widths = [max(len(str(row[column])) for row in rows) for column in range(4)]
    lines = []
    for number, (name, kind, shape, parameters, inbound) in enumerate(rows):
        line = f"{name:{widths[0]}}  {kind:{widths[1]}}  {shape:{widths[2]}}  {parameters:>{widths[3]}}  {inbound}"
        lines.append(line.rstrip())
        if number == 0:
            lines.append("-" * len(line))
    lines.append("")
    frozen = network.parameters - network.trainable
    lines.append(f"{network.parameters:,} parameters, {network.trainable:,} trainable, {frozen:,} not")
    return "\n".join(lines)
