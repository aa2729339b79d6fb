"""The run file: composes the sections, and reads them from a file or a mapping."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from rml_core.checkpoints.section import Checkpoints
from rml_core.config import remote
from rml_core.config.names import OneOf, Tagged, wrong
from rml_core.config.paths import LogText, PathOrContent, folder_of, is_url, problem_of, resolve
from rml_core.config.problem import Problem, Refused, listed, nearest, shown
from rml_core.config.section import Section, json_path, keys_of, parse
from rml_core.config.trust import Origin, Reading, here
from rml_core.data.section import Data
from rml_core.layers import keras_json
from rml_core.layers.graph import Graph
from rml_core.layers.schema import LAYERS_SCHEMA
from rml_core.loss import LATER as LOSSES_LATER
from rml_core.loss import LOSSES, LossSection
from rml_core.optimizer import LATER as OPTIMIZERS_LATER
from rml_core.optimizer import OPTIMIZERS, OptimizerSection

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

ROOT = "neural_network"
DEVICE = r"^(auto|cpu|cuda(:[0-9]+)?)$"


class EarlyStopping(Section):
    """Ends training when the evaluation has not improved for `patience` epochs."""

    metric: Annotated[str, OneOf("metric", "loss", "accuracy")] = "loss"
    """What is watched: the test loss (smaller is better) or the accuracy (larger is better)."""
    patience: int = Field(ge=1, examples=[5])
    """So many epochs without improvement end the training."""
    min_delta: float = Field(0.0, ge=0)
    """A change that is not larger than this is no improvement."""


def _known_device(given: object) -> object:
    if isinstance(given, str) and not re.match(DEVICE, given):
        raise wrong(f"{shown(given)} is no device", "auto, cpu, cuda, or one of several GPUs, as cuda:1")
    return given


class RunFile(Section):
    """What stands under `neural_network`."""

    outfile: LogText | None = Field(None, examples=["out.txt"])
    """Base name of the log files: `out.txt` gives `out_train.txt`, `out_test.txt`, `out_metrics.jsonl` and
    `out_report.png`. None: no log files."""
    num_epochs: int = Field(1, ge=1, examples=[10])
    """Epochs in total; a resumed run goes on up to this number."""
    debug: bool = False
    """Write the network as Graphviz (`network.dot`) and parameter statistics (`debug_<epoch>.json`), beside
    `outfile`, else in the working directory."""
    debug_interval: int = Field(1, ge=1)
    """Every so many epochs the statistics are written."""
    layers: Annotated[PathOrContent, WithJsonSchema(LAYERS_SCHEMA)]
    """The network: a list of Keras layers, a Keras model, or the path of a file with either: JSON, or what
    `model.save` writes (`.h5`, `.keras`)."""
    data: Data
    """Where samples come from."""
    optimizer: Annotated[OptimizerSection, Tagged("optimizer", "type", OPTIMIZERS, OPTIMIZERS_LATER)] | None = None
    """How weights are updated; needed to train."""
    loss: Annotated[LossSection, Tagged("loss function", "function", LOSSES, LOSSES_LATER)] | None = None
    """What is minimised; needed to train and where there are test targets."""
    checkpoints: Checkpoints | None = None
    """What is saved, and what weights a run begins with."""
    seed: int = Field(0, ge=0, examples=[1])
    """Every random draw of the run derives from it."""
    precision: Annotated[str, OneOf("precision", "single", "double", "bf16", "fp16")] = "single"
    """Floating-point numbers of the network; bf16 and fp16 are mixed precision."""
    device: Annotated[str, BeforeValidator(_known_device), Field(pattern=DEVICE)] = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:1`."""
    early_stopping: EarlyStopping | None = None
    """End training when the evaluation no longer improves."""
    tensorboard: LogText | None = Field(None, examples=["tensorboard"])
    """A folder for TensorBoard's logs of training: loss and gradient norm a batch, and everything measured an epoch.
    Needs the package: `pip install "rml[tensorboard]"`."""


@dataclass(frozen=True)
class Run:
    """A run file that is right in itself; whether its data and shapes fit is for `rml_core.check`.

    `mapping` is the user's own object (`{"neural_network": ...}`), `base` the folder relative paths are against (it
    may be behind a URL). `source`: the file it is from; None: nobody knows of one.
    """

    file: RunFile
    graph: Graph
    mapping: dict[str, Any]
    base: AnyPath
    source: AnyPath | None = field(default=None, compare=False)


def read(
    source: AnyPath | str | Mapping[str, Any], base: AnyPath | str | None = None, origin: Origin | None = None
) -> Run:
    """Read a run file, or take a mapping as one; `base` defaults to the file's folder, else the working directory.
    `origin`: who wrote it, left out whoever wrote what this process reads.

    Raises:
        Refused: with every problem that shows without looking at the data.
    """
    mapping, folder, reading = opened(source, base, origin)
    section = mapping[ROOT]
    problems: list[Problem] = []
    file: RunFile | None = None
    graph: Graph | None = None
    try:
        file = parse(RunFile, section, ROOT, reading)
    except Refused as refused:
        problems.extend(refused.problems)
    # The path of a network that may not be read is not looked at any further.
    if "layers" in section and not any(problem.where == f"{ROOT}.layers" for problem in problems):
        try:
            graph = keras_json.read(section["layers"], f"{ROOT}.layers", folder)
        except Refused as refused:
            problems.extend(refused.problems)
    if problems or file is None or graph is None:
        raise Refused(problems)
    place = None if isinstance(source, Mapping) else resolve(source, "") if isinstance(source, str) else source
    return Run(file, graph, mapping, folder.absolute() if isinstance(folder, Path) else folder, place)


def opened(
    source: AnyPath | str | Mapping[str, Any], base: AnyPath | str | None, origin: Origin | None
) -> tuple[dict[str, Any], AnyPath, Reading]:
    """The object that a run file is, the folder that relative paths are against, and how paths are read; parameters as
    `read` takes them. Raises `Refused`: it cannot be read, or is not JSON, or no such object."""
    if isinstance(source, Mapping):
        mapping: Any = dict(source)
        folder = Path.cwd() if base is None else _folder(base)
    else:
        mapping = read_json(source)
        folder = folder_of(source) if base is None else _folder(base)
    root_of(mapping)
    return mapping, folder, Reading(folder, origin or here(), base is not None or not isinstance(source, Mapping))


def lacking(file: RunFile) -> list[Problem]:
    """What the file asks for and this machine has no package for."""
    if file.tensorboard is None or importlib.util.find_spec("tensorboard") is not None:
        return []
    what, remedy = "the package tensorboard is not installed", 'pip install "rml[tensorboard]"'
    return [Problem(f"{ROOT}.tensorboard", what, remedy=remedy)]


def _folder(base: AnyPath | str) -> AnyPath:
    return resolve(base, "") if isinstance(base, str) else base


def with_settings(mapping: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """A copy of `mapping` with `data.batch_size=32` and the like put in; values are JSON, else text.

    Raises:
        Refused: a setting without `=`, or one that leads through something that is not an object; `mapping` is none.
    """
    root_of(mapping)
    changed: dict[str, Any] = json.loads(json.dumps(mapping))
    problems = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            value = json.loads(_as_json_number(text))
        except json.JSONDecodeError:
            value = text
        parts = key.removeprefix(f"{ROOT}.").split(".")
        place: Any = changed.get(ROOT)
        for part in parts[:-1]:
            place = place.setdefault(part, {}) if isinstance(place, dict) else None
        if not equals or not all(parts) or not isinstance(place, dict):
            problems.append(Problem(f"--set {setting}", "cannot be set", "KEY=VALUE, as in data.batch_size=32"))
        else:
            place[parts[-1]] = value
    if problems:
        raise Refused(problems)
    return changed


def _as_json_number(text: str) -> str:
    """`.01`, `1.` and `+1` are numbers on a command line, and none in JSON; other texts stay what they are."""
    number = re.fullmatch(r"([+-]?)(0|[1-9][0-9]*|(?=\.[0-9]))(\.[0-9]*)?([eE][+-]?[0-9]+)?", text)
    if number is None:
        return text
    sign, whole, fraction, exponent = number.groups("")
    digits = "" if fraction in ("", ".") else fraction
    fraction = digits or (".0" if fraction else "")
    return f"{sign.removeprefix('+')}{whole or '0'}{fraction}{exponent}"


def schema() -> dict[str, Any]:
    """The JSON schema of a whole run file."""
    section = RunFile.model_json_schema()
    definitions = section.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rml run file",
        "type": "object",
        "properties": {ROOT: section},
        "required": [ROOT],
        "additionalProperties": False,
        "$defs": definitions,
    }


def read_json(path: AnyPath | str) -> Any:
    """The content of a JSON file, which may be behind a URL.

    Raises:
        Refused: the file cannot be read, or is not JSON: where it stops being so, and what usually helps.
    """
    if isinstance(path, str):
        problem = problem_of(path, path)
        if problem is not None:
            raise Refused([problem])
        path = resolve(path, "")
    try:
        text = remote.read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        why = error.strerror or str(error)
        raise Refused(
            [Problem(str(path), why.lower() if isinstance(error, FileNotFoundError) or not is_url(path) else why)]
        ) from None
    except UnicodeDecodeError:
        raise Refused([Problem(str(path), "is not text", "a JSON file in UTF-8")]) from None
    return json_of(text, str(path))


def json_of(text: str, name: str) -> Any:
    """The JSON that `text` is; `name` is what problems call it.

    Raises:
        Refused: it is not JSON: where it stops being so, and what usually helps; a key stands twice in an object.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise Refused([Problem(name, "is empty")]) from None
        place = f"{name}, line {error.lineno}, column {error.colno}"
        raise Refused([Problem(place, f"not JSON: {error.msg}", remedy=_remedy(text[error.pos :]))]) from None
    except RecursionError:
        raise Refused([Problem(name, "is nested too deeply to be read")]) from None
    except _Twice:
        raise Refused(_twice(json.loads(text, object_pairs_hook=_Pairs), "")) from None
    except ValueError as error:
        raise Refused([Problem(name, str(error))]) from None


def _remedy(rest: str) -> str:
    """What usually helps where `rest` of a text is not JSON: other languages' habits have a name."""
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments: take it out"
    if rest.startswith("'"):
        return 'JSON has double quotes: "..."'
    if rest.startswith(("True", "False", "None")):
        return "JSON writes true, false and null"
    return "look for a comma, a quote or a bracket that is missing or too many just before that place"


class _Twice(ValueError):
    """A key stands twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice
    return found


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON, with the keys that stand in it more than once."""


def _twice(value: Any, where: str) -> list[Problem]:
    """Keys that stand several times in one object of `value`, each with its place."""
    if not isinstance(value, list):
        return []
    if not isinstance(value, _Pairs):
        return [problem for index, each in enumerate(value) for problem in _twice(each, json_path(where, [index]))]
    given: dict[str, list[Any]] = {}
    for key, each in value:
        given.setdefault(key, []).append(each)
    problems = []
    for key, values in given.items():
        place = json_path(where, [key])
        if len(values) > 1:
            said = f": {listed(map(shown, values))}" if not any(isinstance(each, list) for each in values) else ""
            what = f"stands {len(values)} times in one object{said}"
            problems.append(Problem(place, what, remedy="keep one of them: JSON would take the last without a word"))
        problems += [problem for each in values for problem in _twice(each, place)]
    return problems


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def root_of(mapping: Any) -> dict[str, Any]:
    """What stands under `neural_network`. Raises `Refused` where it does not, or does not alone."""
    allowed = f'one object, {{"{ROOT}": {{...}}}}'
    if not isinstance(mapping, Mapping):
        raise Refused([Problem("run file", f"{shown(mapping)} is not an object", allowed)])
    if mapping and set(mapping) <= set(keys_of(RunFile)):
        raise Refused([Problem(ROOT, "is missing", allowed, f'put all of it into {{"{ROOT}": ...}}')])
    problems = [Problem(str(key), "unknown key", ROOT, nearest(key, [ROOT])) for key in mapping if key != ROOT]
    if ROOT not in mapping:
        problems.append(Problem(ROOT, "is missing", allowed))
    elif not isinstance(mapping[ROOT], Mapping):
        problems.append(Problem(ROOT, f"{shown(mapping[ROOT])} is not an object", allowed))
    if problems:
        raise Refused(problems)
    return dict(mapping[ROOT])
