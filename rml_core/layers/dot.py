"""A network as Graphviz text."""

from __future__ import annotations

from rml_core.layers.graph import Network
from rml_core.layers.section import say


def to_dot(network: Network) -> str:
    """Every layer with its class, its output's shape (channels last) and its parameters; an edge for each use.

    A shared layer is one box with several edges in.
    """
    lines = ["digraph network {", "  rankdir=TB;", '  node [shape=box, fontname="Helvetica"];']
    places = {row.name: place for place, row in enumerate(network.rows)}
    for row, place in zip(network.rows, places.values(), strict=True):
        label = [row.name, row.class_name, say(row.output_shape)]
        if row.parameters:
            frozen = row.parameters - row.trainable
            label.append(f"{row.parameters} parameters" + (f", {frozen} not trainable" if frozen else ""))
        text = "\\n".join(map(_escaped, label))
        lines.append(f'  layer{place} [label="{text}"];')
    for row in network.rows:
        lines += [f"  layer{places[name]} -> layer{places[row.name]};" for name in row.inbound]
    return "\n".join([*lines, "}", ""])


def _escaped(text: str) -> str:
    """Graphviz takes HTML's names of characters for them."""
    return text.replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
