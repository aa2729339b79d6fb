"""What a checkpoint holds of a rank, in plain values and tensors, and the way back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rml_core.config.problem import RunFailed
from rml_core.config.seed import derive
from rml_core.engine.epoch import Sums, kept_before
from rml_core.engine.step import Training

if TYPE_CHECKING:
    from rml_core.engine.rank import Setup


def saved_state(
    setup: Setup,
    network: nn.Module,
    training: Training,
    *,
    epoch: int,
    batch: int,
    elapsed: float,
    sums: Sums,
    history: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Everything that a run needs to go on behind `batch` of `epoch` (0: at its end).

    Raises:
        RunFailed: the weights are not finite: nothing can go on from them.
    """
    assert setup.training is not None
    # A last batch may have a finite loss and still ruin the weights.
    values = [values for values in network.state_dict().values() if values.is_floating_point()]
    finite = [each.isfinite().all() for each in values]
    if not torch.stack([*finite, torch.tensor(True, device=training.device)]).all():
        raise RunFailed(
            f"the weights became nan or infinite in epoch {epoch}: lower optimizer.learning_rate, or set "
            f"optimizer.clip_norm{kept_before(epoch)}"
        )
    return {
        "run_id": setup.run_id,
        "flow_run": setup.flow_run,
        "app": setup.app,
        "started": setup.started,
        "epoch": epoch,
        "batch": batch,
        "elapsed": elapsed,
        "network": network.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": {"learning_rate": training.optimizer.param_groups[0]["lr"]},
        "scaler": training.scaler.state_dict() if training.scaler is not None else {},
        "random": random_state(training.device),
        "sums": {"loss": sums.loss, "samples": sums.samples, "batch": batch, "seconds": sums.seconds},
        "history": json.dumps(history),
        "samples": setup.training.count,
        "sample_shape": list(setup.training.sample_shape),
        "classes": list(setup.training.classes or ()),
        "mask_values": list(setup.mask_mapping) if setup.mask_mapping is not None else None,
        "run": setup.run_file,
    }


def restore(saved: dict[str, Any], network: nn.Module, training: Training | None, learning_rate: float) -> None:
    """Put back what was learned and gathered; `learning_rate`: that of the checkpoint's epoch."""
    network.load_state_dict(saved["network"])
    if training is None:
        return
    # Its settings are the run file's and this device's: only what it has gathered is taken over.
    own = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({**saved["optimizer"], "param_groups": own})
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate
    if training.scaler is not None and saved["scaler"]:
        training.scaler.load_state_dict(saved["scaler"])


def random_state(device: torch.device) -> dict[str, Any]:
    """Where torch's generators are, from which dropout draws."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def begin_epoch(seed: int, epoch: int, rank: int, device: torch.device, within: dict[str, Any] | None) -> None:
    """Begin torch's generators anew for the epoch, or go on where a checkpoint `within` it left them."""
    of_epoch = derive(seed, "epoch", epoch, rank) % 2**63
    torch.default_generator.manual_seed(of_epoch)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(of_epoch)
    if within is not None:
        torch.set_rng_state(within["cpu"])
        if device.type == "cuda" and "cuda" in within:
            torch.cuda.set_rng_state(within["cuda"], device)
