"""Files that torch.save wrote: a run's checkpoints and plain `state_dict`s. Reading one never executes its code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rml_core.checkpoints.content import LEGACY, cut_short, damaged, executes, is_torch, is_whole, not_weights
from rml_core.checkpoints.stored import Held, Stored
from rml_core.checkpoints.table import format_of
from rml_core.config import remote, roots
from rml_core.config.problem import Problem, Refused, listed, shown

if TYPE_CHECKING:
    from upath import UPath

    from rml_core.config.paths import AnyPath

# Of an archive behind a URL the list of its members and the first of them are read.
OUTLINE_BYTES = 1 << 16

# What every checkpoint of a run says of itself, and the types that it says it with.
HEADER = {"run_id": str, "started": float, "epoch": int, "batch": int}

# What others call the state_dict beside the rest of what they save; the first one that is there is taken.
STATES = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "params")


def load(path: Path, where: str, mmap: bool) -> Any:
    """What torch.save was given. `mmap`: tensors stay in the file until they are used.

    Raises:
        Refused: the file is not one, is cut short or damaged, or would execute code.
    """
    found = format_of(path, where)
    if found.recognises is not is_torch:
        raise Refused([Problem(where, f"{path} is {found.name}, not a checkpoint of a run")])
    with roots.opened(str(path)) as file:
        legacy = file.read(len(LEGACY)) == LEGACY
        return _load(roots.name_of_open(file, str(path)), path, where, legacy, mmap and not legacy)


def _load(opened: str, path: Path, where: str, legacy: bool, mmap: bool) -> Any:
    try:
        return torch.load(opened, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        name = re.search(r"\bGLOBAL (\S+)", str(error))
        if name and (legacy or is_whole(path)):
            raise executes(path, where, name[1]) from None
        raise damaged(path, where) from None
    except EOFError:
        raise cut_short(path, where) from None
    except Exception as error:
        # torch has no type of its own for a file that is not as it should be.
        raise cut_short(path, where) if "EOF" in str(error) else damaged(path, where) from None


def read(path: Path, where: str) -> Stored:
    """The network's weights in a checkpoint of a run, in a plain `state_dict`, or in a mapping that has one.

    Raises:
        Refused: as `load`, and where the file holds no weights by name, or those of several networks.
    """
    saved = load(path, where, mmap=True)
    if not isinstance(saved, Mapping):
        raise not_weights(path, where)
    if is_checkpoint(saved):
        saved = saved["network"]
    weights = _tensors(saved)
    if not weights:
        inside = {str(key): found for key, value in saved.items() if (found := _tensors(value))}
        chosen = [key for key in STATES if key in inside][:1] or list(inside)
        if len(chosen) > 1:
            what = f"{path} holds the weights of several networks: {listed(chosen)}"
            remedy = 'save those of one: torch.save(torch.load(FILE)["NAME"], "weights.pt")'
            raise Refused([Problem(where, what, "tensors by name, as in a state_dict", remedy)])
        if not chosen:
            what = f"{path} holds no weights: its keys are {shown([str(key) for key in saved])}"
            raise Refused([Problem(where, what, "tensors by name, as in a state_dict")])
        weights = inside[chosen[0]]
    return by_layer(weights)


def _tensors(value: object) -> dict[str, Tensor]:
    if not isinstance(value, Mapping):
        return {}
    return {name: values for name, values in value.items() if isinstance(name, str) and isinstance(values, Tensor)}


def by_layer(weights: Mapping[str, Tensor]) -> Stored:
    """`<layer>.<weight>` by layer."""
    layers: dict[str, list[tuple[str, Tensor]]] = {}
    for key, value in weights.items():
        layer, _, name = key.rpartition(".")
        layers.setdefault(layer, []).append((name, value))
    return Stored(tuple(Held(name, tuple(name.split(".")), tuple(values)) for name, values in layers.items()))


def header(path: AnyPath, where: str) -> Mapping[str, Any] | None:
    """All that a run's checkpoint says, its tensors left in the file; None for other files with weights.

    Raises:
        Refused: as `load`.
    """
    if format_of(path, where).recognises is not is_torch:
        return None
    saved = load(path, where, mmap=True) if isinstance(path, Path) else _outline(path, where)
    return saved if is_checkpoint(saved) else None


def _outline(path: UPath, where: str) -> Any:
    """What torch.save was given, of which the tensors are not fetched."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    found = format_of(path, where)
    if found.recognises is not is_torch:
        raise Refused([Problem(where, f"{path} is {found.name}, not a checkpoint of a run")])
    try:
        with remote.opened(path, block_size=OUTLINE_BYTES) as file, FakeTensorMode():
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise Refused([Problem(where, f"{path}: {error.strerror or error}")]) from None
    except Exception:
        # torch has no type of its own for a file that is not as it should be.
        raise damaged(path, where) from None


def is_checkpoint(saved: object) -> bool:
    return (
        isinstance(saved, Mapping)
        and all(isinstance(saved.get(key), kind) for key, kind in HEADER.items())
        and isinstance(saved.get("network"), Mapping)
    )
