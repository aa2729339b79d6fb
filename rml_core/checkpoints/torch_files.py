"""Files that torch.save wrote: a run's checkpoints and plain `state_dict`s. Reading one never executes its code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rml_core.checkpoints.content import LEGACY, cut_short, damaged, executes, is_whole, not_weights
from rml_core.checkpoints.table import format_of
from rml_core.config.problem import Problem, Refused, shown

# What every checkpoint of a run says of itself, and the types that it says it with.
HEADER = {"run_id": str, "started": float, "epoch": int, "batch": int}


def load(path: Path, where: str, mmap: bool) -> Any:
    """What torch.save was given. `mmap`: tensors stay in the file until they are used.

    Raises:
        Refused: the file is not one, is cut short or damaged, or would execute code.
    """
    format_of(path, where)
    with path.open("rb") as file:
        legacy = file.read(len(LEGACY)) == LEGACY
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and not legacy)
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


def weights_of(path: Path, where: str) -> Mapping[str, Tensor]:
    """The network's weights in a checkpoint of a run or in a plain `state_dict`: `<layer>.<weight>` to its values.

    Raises:
        Refused: as `load`, and where the file holds no weights by name.
    """
    saved = load(path, where, mmap=True)
    if not isinstance(saved, Mapping):
        raise not_weights(path, where)
    if is_checkpoint(saved):
        saved = saved["network"]
    weights = {name: values for name, values in saved.items() if isinstance(name, str) and isinstance(values, Tensor)}
    if not weights:
        what = f"{path} holds no weights: its keys are {shown([str(key) for key in saved])}"
        raise Refused([Problem(where, what, "tensors by name, as in a state_dict")])
    return weights


def header(path: Path, where: str) -> Mapping[str, Any] | None:
    """All that a run's checkpoint says, its tensors left in the file; None for other files that torch.save wrote.

    Raises:
        Refused: as `load`.
    """
    saved = load(path, where, mmap=True)
    return saved if is_checkpoint(saved) else None


def is_checkpoint(saved: object) -> bool:
    return (
        isinstance(saved, Mapping)
        and all(isinstance(saved.get(key), kind) for key, kind in HEADER.items())
        and isinstance(saved.get("network"), Mapping)
    )
