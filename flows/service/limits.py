"""The limits that `rml up` sets: how many runs each pool takes at a time, on the server."""

from __future__ import annotations

from flows.service.state import Options


def of_pools(options: Options) -> dict[str, int | None]:
    """Runs at a time by pool. A pool that this machine takes nothing from is limited by its own workers."""
    return {"gpu": options.gpu_runs or None, "cpu": options.cpu_runs or None}
