"""The limits that `rml up` sets on the server: how many runs each pool takes at a time, and how many share a GPU."""

from __future__ import annotations

import os

from flows.device_slots import limit_name
from flows.service.state import Options
from tasks.devices import pretended, runs_allowed


def of_pools(options: Options) -> dict[str, int | None]:
    """Runs at a time by pool. A pool that this machine takes nothing from is limited by its own workers."""
    return {"gpu": options.gpu_runs or None, "cpu": options.cpu_runs or None}


def of_devices() -> dict[str, int]:
    """Runs that may share a GPU of this machine, by the GPU's limit."""
    allowed = runs_allowed()
    return {limit_name(index): allowed for index in range(gpus())}


def gpus() -> int:
    """GPUs of this machine, as the driver lists them: asking torch takes two seconds."""
    count = pretended()
    if count is not None:
        return count
    try:
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        return 0
