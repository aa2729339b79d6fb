"""Going on where an earlier run ended: its newest checkpoint, and whether it is of the same run file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rml_core.checkpoints import native
from rml_core.checkpoints.torch_files import header
from rml_core.config.problem import Problem, Refused, listed, shown
from rml_core.config.trust import without_secrets
from rml_core.data.masks import Mapped
from rml_core.engine.log import LogFiles, are_of
from rml_core.layers import keras_json
from rml_core.run import ROOT, Run, read

if TYPE_CHECKING:
    from rml_core.config.paths import AnyPath

# What may change between a run and its continuation: how long it is, how it is watched, and where things go.
FREE = {
    "num_epochs",
    "outfile",
    "debug",
    "debug_interval",
    "device",
    "early_stopping",
    "tensorboard",
    "checkpoints",
    "data.test_output_path",
    "data.hdf5_outfile",
    "data.hdf5_precision",
    "data.hdf5_output",
    "data.overlap_blend",
    "data.preload",
    "data.test_batch_size",
}

WHERE = f"{ROOT}.checkpoints.save"


@dataclass(frozen=True)
class Position:
    """Where a checkpoint stands: `batch` 0 means that `epoch` is complete. `history`: the figures of its epochs."""

    path: AnyPath
    run_id: str
    started: float
    epoch: int
    batch: int
    mask_values: Mapped
    history: tuple[dict[str, Any], ...] = ()


def find(
    run: Run, folder: AnyPath, classes: tuple[str, ...], samples: int, of: str | None = None
) -> tuple[Position | None, list[str]]:
    """The newest checkpoint of the latest run in `folder`, or of the run whose id is given, None when there is none;
    and what was passed over.

    `classes`: names of the classes of labels, and `samples`: how many training samples, that the data has now.

    Raises:
        Refused: it belongs to another network, optimizer or data; every key that differs is named.
    """
    path, said = native.newest(folder, of)
    if path is None:
        return None, said
    saved = header(path, WHERE)
    assert saved is not None
    earlier = read(json.loads(saved["run"]), base=run.base)
    differences = list(_differences(*map(without_secrets, (earlier.file.model_dump(), run.file.model_dump()))))
    if earlier.graph != run.graph:
        differences.insert(0, "layers")
    if tuple(saved["classes"]) != classes:
        differences.append(f"the classes were {listed(saved['classes'])} and are {listed(classes)}")
    if saved["samples"] != samples:
        differences.append(f"there were {saved['samples']} training samples and are {samples}")
    if differences:
        raise _other(path, differences)
    values = tuple(saved["mask_values"]) if saved["mask_values"] is not None else None
    history = tuple(json.loads(saved["history"]))
    return Position(path, saved["run_id"], saved["started"], saved["epoch"], saved["batch"], values, history), said


def is_overwritten(position: Position, folder: AnyPath, logs: LogFiles | None) -> bool:
    """Whether another run has begun in `folder`, or written to `logs`, since the run that stands at `position` did."""
    if native.writes_last(folder) not in (None, position.run_id):
        return True
    return logs is not None and not are_of(logs, position.history, position.epoch)


def check_masks(position: Position, mapped: Mapped) -> None:
    """Raises `Refused` where other raw values of the masks stand for the classes now, which only reading them shows."""
    before, now = (
        "the classes themselves" if values is None else listed(map(str, values))
        for values in (position.mask_values, mapped)
    )
    if before != now:
        raise _other(position.path, [f"the values of the masks were {before} and are {now}"])


def _other(path: AnyPath, differences: list[str]) -> Refused:
    problem = Problem(
        WHERE,
        f"{path} was saved by a run with other settings: {'; '.join(differences)}",
        remedy="put the settings back to resume, or run without --resume and with another folder to start anew",
    )
    return Refused([problem])


def text_of(run: Run) -> str:
    """The run file as a checkpoint keeps it: with the network's own JSON where the file gives its path, and without the
    secrets in its URLs."""
    section = dict(run.mapping[ROOT])
    if isinstance(section["layers"], str):
        section["layers"] = keras_json.load(section["layers"], f"{ROOT}.layers", run.base)
    return json.dumps(without_secrets({ROOT: section}))


def _differences(earlier: dict[str, Any], now: dict[str, Any], path: str = "") -> Iterator[str]:
    # What only one of them has belongs to another type, which is said.
    for key in sorted(set(earlier) & set(now)):
        place = f"{path}{key}"
        if place in FREE or place == "layers":
            continue
        before, after = earlier[key], now[key]
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{place}.")
        elif _are_sections(before, after):
            for number, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from _differences(one, other, f"{place}[{number}].")
        elif before != after:
            yield f"{place} was {shown(before)} and is {shown(after)}"


def _are_sections(before: Any, after: Any) -> bool:
    """Whether two lists have sections of the same keys at each place, which differ by these keys."""
    lists = isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) == len(after)
    return lists and all(
        isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys()
        for one, other in zip(before, after, strict=True)
    )
