"""HDF5 files of Keras 1 and 2, and of Keras 3's `model.save("x.h5")`: a group a layer, with the names of its weights.

A whole model has these groups in `model_weights`, beside its optimizer's; `save_weights` writes them at the root.
A nested model is one group; its weights bear the names of the layers in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rml_core.checkpoints.hdf5 import Value, hdf5, tensor, text, texts
from rml_core.checkpoints.stored import Held, Stored
from rml_core.config import roots

Key = tuple[str, ...]


def read(path: Path, where: str, value: Value = tensor) -> Stored:
    """The layers with weights of the file; `value` reads one of them.

    Raises:
        Refused: it is cut short or damaged.
    """
    with roots.opened(str(path)) as source, hdf5(source, path, where) as file:
        root = file.get("model_weights", file)
        held = []
        for name in texts(root, "layer_names"):
            names = texts(root[name], "weight_names")
            if names:
                held.append(Held(name, (name,), tuple((each, value(root[name], each)) for each in names)))
        # Keras 1 does not say its version.
        version = text(root.attrs.get("keras_version", file.attrs.get("keras_version", "1")))
        backend = text(root.attrs.get("backend", file.attrs.get("backend", "")))
        return Stored(tuple(held), int(version.partition(".")[0]), flipped=backend == "theano")


def layers_of(held: Held, own: Iterable[Key]) -> Iterator[Held]:
    """The layers whose weights the group `held` has: itself, or those of a nested model.

    `own`: the paths of the network's layers, by which the two are told apart: what stands before the name of a layer's
    weight need not be the layer's name (TensorFlow 1 numbered it again when a model was loaded).
    """
    paths = [path for path in own if path[0] == held.name]
    if (held.name,) in paths:
        yield held
        return
    scopes: dict[str, list[int]] = {}
    for index, (name, _) in enumerate(held.weights):
        scopes.setdefault(name.rpartition("/")[0].removeprefix(held.name + "/"), []).append(index)
    if not paths and len(scopes) == 1:
        yield held
        return
    for scope, indices in scopes.items():
        path = _within(scope, paths) or (held.name, scope)
        yield Held("/".join(path), path, tuple(held.weights[index] for index in indices))


def _within(scope: str, paths: list[Key]) -> Key | None:
    """Which layer of a nested model `scope` is: its name, perhaps behind those of models, of which some may lack."""
    agreeing = (
        [path for path in paths if "/".join(path[1:]) == scope],
        [path for path in paths if "/".join(path).endswith("/" + scope)],
        [path for path in paths if ("/" + scope).endswith("/" + path[-1])],
    )
    return next((found[0] for found in agreeing if len(found) == 1), None)
