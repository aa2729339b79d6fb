"""Networks as Keras 2 and Keras 3 write them in JSON, read without Keras."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rml_core.config import remote
from rml_core.config.names import unknown_name
from rml_core.config.paths import problem_of, resolve
from rml_core.config.problem import Problem, Refused, nearest, shown
from rml_core.config.section import parse
from rml_core.layers import LAYERS, REMEDIES, saved_models
from rml_core.layers.graph import GIVEN, Entry, Graph, Node
from rml_core.layers.inputs import InputLayer
from rml_core.layers.section import LayerSection, Shape
from rml_core.layers.wiring import path, wire

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

MODELS = ("Sequential", "Functional", "Model")
_LAYER_KEYS = ("class_name", "config", "name", "inbound_nodes")
_SILENT_KEYS = ("module", "registered_name", "build_config", "compile_config", "shared_object_id")
_MODEL_KEYS = ("name", "layers", "input_layers", "output_layers", "trainable")
_SILENT_MODEL_KEYS = ("build_input_shape", "dtype", "build_config")
# What may stand in the file of a network, in the words of messages.
NETWORK_FILES = "what Keras's model.to_json() writes, or a whole model: .h5, .keras"
_BY_NAME = {name.casefold(): name for name in (*LAYERS, *MODELS)}


def read(source: object, where: str, base: AnyPath) -> Graph:
    """The network that `source` describes: a list of layers, a model object, or the path of a JSON file with either.

    `where` is the JSON path of `source` itself. Raises `Refused` with every problem found.
    """
    if isinstance(source, str):
        where, source = f"{source}: ", load(source, where, base)
    reader = _Reader(_version(source))
    try:
        graph = reader.graph(source, where)
    except RecursionError:
        graph = None
        reader.problems.append(Problem(where, "models are nested too deeply"))
    if reader.problems or graph is None:
        raise Refused(reader.problems)
    return graph


def load(source: str, where: str, base: AnyPath) -> Any:
    """The JSON of the network's file. Raises `Refused` where there is none."""
    problem = problem_of(source, where)
    if problem is not None:
        raise Refused([problem])
    path = resolve(source, base)
    try:
        saved_models.refuse_folder(path)
        with remote.opened(path) as file:
            model = saved_models.json_in(file)
            if model is not None:
                return model
            value = json.loads(file.read().decode())
        # What `json.dump(model.to_json(), file)` leaves: a string in which the JSON is.
        return json.loads(value) if isinstance(value, str) else value
    except (FileNotFoundError, NotADirectoryError):
        raise Refused([Problem(where, f"{shown(source)} does not exist", "", f"looked for {path}")]) from None
    except OSError as error:
        raise Refused([Problem(where, f"{shown(source)} cannot be read: {error.strerror}")]) from None
    except saved_models.NoNetwork as missing:
        raise Refused([Problem(where, f"{shown(source)} {missing}", NETWORK_FILES, missing.remedy)]) from None
    except (ValueError, RecursionError) as error:
        what = f"{shown(source)} cannot be read as JSON: {error}"
        raise Refused([Problem(where, what, NETWORK_FILES)]) from None


def _version(source: object) -> int:
    """Keras 2 writes its version; Keras 3 does not, but names the module of every object."""
    if not isinstance(source, Mapping):
        return 2
    if "keras_version" in source:
        return 3 if str(source["keras_version"]).startswith("3") else 2
    return 3 if "module" in source else 2


class _Reader:
    def __init__(self, version: int):
        self.version = version
        self.problems: list[Problem] = []

    def graph(self, source: object, where: str) -> Graph | None:
        """A list of layers or a model object; None where a problem was found."""
        if isinstance(source, Mapping):
            return self._model(source, where)
        if isinstance(source, list):
            return self._connected(source, {}, where, where)
        allowed = "a list of layers, a model object, or the path of a JSON file"
        self.problems.append(Problem(where.removesuffix(": "), f"{shown(source)} is not a network", allowed))
        return None

    def _model(self, source: Mapping[str, Any], where: str) -> Graph | None:
        known = self._keys(source, (*_LAYER_KEYS, "keras_version", "backend"), _SILENT_KEYS, where)
        name = source.get("class_name")
        if not isinstance(name, str) or name.casefold() not in map(str.casefold, MODELS):
            self._wrong_name("model", name, MODELS, path(where, "class_name"))
            return None
        where = path(where, "config")
        config = source.get("config")
        if isinstance(config, list):
            return self._connected(config, {}, where, where) if known else None
        if not isinstance(config, Mapping) or not isinstance(config.get("layers"), list):
            self.problems.append(Problem(where, f"{shown(config)} is not a model's config", 'an object with "layers"'))
            return None
        self._keys(config, _MODEL_KEYS, _SILENT_MODEL_KEYS, where)
        return self._connected(config["layers"], config, path(where, "layers"), where)

    def _keys(self, value: Mapping[str, Any], keys: Sequence[str], silent: Sequence[str], where: str) -> bool:
        unknown = [key for key in value if key not in keys and key not in silent]
        for key in unknown:
            what = Problem(path(where, str(key)), "unknown key", ", ".join(keys), nearest(key, keys))
            self.problems.append(what)
        return not unknown

    def _wrong_name(self, kind: str, given: object, names: Sequence[str], where: str) -> None:
        context = unknown_name(kind, given, names).context or {}
        what = f"is missing: the name of a {kind}" if given is None else context["what"]
        remedies = {name.casefold(): remedy for name, remedy in REMEDIES.items()}
        remedy = remedies.get(str(given).casefold(), context["remedy"])
        self.problems.append(Problem(where, what, context["allowed"], remedy))

    def _connected(self, items: list[Any], config: Mapping[str, Any], where: str, model: str) -> Graph | None:
        """The graph of the layers `items`; `config` is the model's, empty for a bare list."""
        before = len(self.problems)
        if not items:
            self.problems.append(Problem(where.removesuffix(": "), "there are no layers", "at least one"))
            return None
        entries = [self._entry(item, path(where, index)) for index, item in enumerate(items)]
        names = self._names(items, entries)
        trainable = config.get("trainable", True)
        if not isinstance(trainable, bool):
            self.problems.append(Problem(path(model, "trainable"), f"{shown(trainable)} does not fit", "true, false"))
        if len(self.problems) > before:
            return None
        whole = [
            Entry(name, class_name, content, path(where, index))
            for index, (name, (class_name, content)) in enumerate(zip(names, filter(None, entries), strict=True))
        ]
        try:
            nodes, output = wire(whole, items, config, where, model)
        except Refused as refused:
            self.problems += refused.problems
            return None
        shape = _input_shape(whole, nodes, config)
        return Graph(tuple(whole), nodes, output, shape, trainable, self.version, model.removesuffix(": "))

    def _entry(self, item: object, where: str) -> tuple[str, LayerSection | Graph] | None:
        if not isinstance(item, Mapping):
            self.problems.append(Problem(where, f"{shown(item)} is not a layer", "an object"))
            return None
        given = item.get("class_name")
        name = _BY_NAME.get(given.casefold()) if isinstance(given, str) else None
        if name in MODELS:
            graph = self._model(item, where)
            return (name, graph) if graph else None
        self._keys(item, _LAYER_KEYS, _SILENT_KEYS, where)
        if name is None:
            self._wrong_name("layer", given, list(LAYERS), path(where, "class_name"))
            return None
        try:
            return name, parse(LAYERS[name], item.get("config") or {}, path(where, "config"))
        except Refused as refused:
            self.problems += refused.problems
            return None

    def _names(self, items: list[Any], entries: list[tuple[str, LayerSection | Graph] | None]) -> list[str]:
        """The given names; a layer without one gets its class's, numbered where that is taken."""
        given = [_name(item) for item in items]
        taken = set(given)
        names = []
        for name, entry in zip(given, entries, strict=True):
            stem = entry[0].lower() if entry else "layer"
            numbered = (f"{stem}_{number}" if number else stem for number in itertools.count())
            names.append(name or next(new for new in numbered if new not in taken))
            taken.add(names[-1])
        return names


def _name(item: object) -> str | None:
    if not isinstance(item, Mapping):
        return None
    config = item.get("config")
    name = item.get("name") or (config.get("name") if isinstance(config, Mapping) else None)
    return name if isinstance(name, str) else None


def _input_shape(entries: list[Entry], nodes: tuple[Node, ...], config: Mapping[str, Any]) -> Shape | None:
    """What the input's layer says, else the first layer that the input is given to, else the model."""
    fed = sorted({node.entry for node in nodes if GIVEN in node.inputs})
    for index in sorted(fed, key=lambda index: not isinstance(entries[index].content, InputLayer)):
        content = entries[index].content
        shape = content.input_shape if isinstance(content, Graph) else content.declared_shape
        if shape:
            return shape
    built = config.get("build_input_shape")
    if isinstance(built, list) and len(built) > 1 and all(size is None or type(size) is int for size in built):
        return tuple(built[1:])
    return None
