"""Archives of libtorch: what `torch.jit.save` and C++'s `torch::save` write, read without running any of it.

The archive's `data.pkl` is the module as nested objects of classes that only its own code defines. Here each is a bag
of attributes: no code of the archive is compiled, as `torch.jit.load` would do, and none of Python's is looked up.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rml_core.checkpoints.content import damaged, executes
from rml_core.checkpoints.stored import Stored
from rml_core.checkpoints.torch_files import by_layer
from rml_core.config import roots
from rml_core.config.problem import Problem, Refused

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read(path: Path, where: str) -> Stored:
    """The parameters and buffers of the module in the archive.

    Raises:
        Refused: it is damaged, or it holds something else than a module with tensors.
    """
    try:
        with roots.opened(str(path)) as file, zipfile.ZipFile(file) as archive:
            name = next(each for each in archive.namelist() if each.partition("/")[2] == "data.pkl")
            module = _Unpickler(archive, name.partition("/")[0]).load()
    except _Foreign as foreign:
        raise executes(path, where, str(foreign)) from None
    except Exception:
        # A pickle that makes no sense raises anything.
        raise damaged(path, where) from None
    weights = dict(_tensors(module, ""))
    if not weights:
        what = f"{path} holds no weights: it is a libtorch archive without a module's parameters"
        raise Refused([Problem(where, what)])
    return by_layer(weights)


class _Foreign(Exception):
    """A name that a module's parameters do not need."""


class _Attributes:
    """An object of a class that the archive defines."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Takes tensors from `archive`, whose members are in `folder`."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "__torch__":
            return _Attributes
        known = KNOWN.get((module, name))
        if known is None and module == "torch" and name in DTYPES:
            return DTYPES[name]
        if known is None:
            raise _Foreign(f"{module}.{name}")
        return known

    def persistent_load(self, pid: Any) -> Tensor:
        """`("storage", type, member, device, count)`."""
        _, dtype, member, _, count = pid
        if member not in self.storages:
            content = bytearray(self.archive.read(f"{self.folder}/data/{member}"))
            self.storages[member] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        if self.storages[member].numel() != count:
            raise ValueError(member)
        return self.storages[member]


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _first(value: Any, *_: object) -> Any:
    return value


# What a module's pickle looks up, and what stands for it here.
KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("collections", "OrderedDict"): dict,
    ("torch", "device"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{("torch.jit._pickle", f"build_{kind}list"): list for kind in ("int", "double", "bool", "tensor")},
}


def _tensors(value: Any, prefix: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Names and values of the tensors among the attributes of a module and of the modules in it."""
    if depth > 100:
        return
    state = value.__dict__.get("state") if isinstance(value, _Attributes) else None
    for name, each in (state if isinstance(state, dict) else {}).items():
        if isinstance(each, Tensor):
            yield f"{prefix}{name}", each
        else:
            yield from _tensors(each, f"{prefix}{name}.", depth + 1)
