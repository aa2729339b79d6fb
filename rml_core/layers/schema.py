"""The JSON schema of the `layers` key: loose where Keras's own files are, the reader says the rest."""

from __future__ import annotations

from typing import Any

_LAYER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "class_name": {"type": "string", "description": "A Keras layer's class, as Conv2D."},
        "config": {"type": "object", "description": "The layer's Keras configuration."},
        "inbound_nodes": {"description": "The layers it takes its inputs from; left out: the previous one."},
    },
    "required": ["class_name"],
}

LAYERS_SCHEMA: dict[str, Any] = {
    "title": "Layers",
    "description": "The network: a list of Keras layers, a Keras model, or the path of a file with either: JSON, or "
    "what `model.save` writes (`.h5`, `.keras`).",
    "anyOf": [
        {"title": "Layers", "type": "array", "items": _LAYER},
        {"title": "Path of a Keras JSON file", "type": "string"},
        {
            "title": "Keras model",
            "type": "object",
            "properties": {"class_name": {"type": "string"}, "config": {}},
        },
    ],
}
