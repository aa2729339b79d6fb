"""The run's `device` and `precision` as torch has them, and the way of a batch to them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from rml_core.config.problem import Problem, Refused
from rml_core.data.batches import Batch

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """`dtype`: of parameters and inputs. `autocast`: the narrower type of products, or None. `scaled`: gradients
    of float16 underflow without a scaled loss (Micikevicius et al., arXiv:1710.03740, section 3.2)."""

    dtype: torch.dtype
    autocast: torch.dtype | None
    scaled: bool

    @classmethod
    def named(cls, name: str) -> Precision:
        dtype = torch.float64 if name == "double" else torch.float32
        return cls(dtype, AUTOCAST.get(name), name == "fp16")

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(device.type, self.autocast)


def device_named(name: str, rank: int = 0) -> torch.device:
    """`auto`: a GPU where there is one, rank by rank. Determinism is set with the device: only GPUs need it said.

    Raises:
        Refused: the device is not there.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        name = f"cuda:{rank % count}" if count else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        index = device.index or 0
        if index >= count:
            what = f'"{name}" is not there: this machine has {count} GPUs'
            raise Refused(
                [Problem("neural_network.device", what, "auto, cpu" if not count else f"auto, cpu, {_some(count)}")]
            )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        # Single precision is meant as it is said: TF32 keeps 10 of its 23 bits.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        # A few kernels (some pooling gradients) have no deterministic form: torch then warns, and the run goes on.
        torch.use_deterministic_algorithms(True, warn_only=True)
        # With them torch would fill every new tensor, to show up code that reads what it has not written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        device = torch.device("cuda", index)
    return device


def _some(count: int) -> str:
    return "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"


def to_device(batch: Batch, device: torch.device, precision: Precision) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """A batch's inputs, targets and `kept`: numbers in the network's type, class indices and booleans as they are."""
    inputs = torch.from_numpy(batch.inputs).to(device, precision.dtype, non_blocking=True)
    if batch.targets is None:
        return inputs, None, None
    targets = torch.from_numpy(batch.targets).to(device, non_blocking=True)
    if targets.is_floating_point():
        targets = targets.to(precision.dtype)
    kept = None if batch.kept is None else torch.from_numpy(batch.kept).to(device, non_blocking=True)
    return inputs, targets, kept
