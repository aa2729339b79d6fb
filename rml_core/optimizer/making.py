"""What making any of the optimizers takes: the parameters to train, and a class that does not load the compiler."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rml_core.config.problem import Problem, Refused

if TYPE_CHECKING:
    import torch

_UNFREEZE = 'set "trainable": true on a layer with weights, or leave out "data.input_path" to evaluate only'


def trainable(parameters: Iterable[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """Those that training changes. Raises `Refused` where there is none."""
    found = [parameter for parameter in parameters if parameter.requires_grad]
    if not found:
        raise Refused([Problem("neural_network.layers", "no layer has a trainable weight", remedy=_UNFREEZE)])
    return found


def uncompiled(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """`kind` without the wrappers that load torch.compile's machinery, a second's work, to tell it to keep out.

    Nothing here is compiled: what the wrappers guard is the same without them.
    """
    import torch

    guarded = ("add_param_group", "state_dict", "load_state_dict")
    plain: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in guarded}
    plain["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), plain)
