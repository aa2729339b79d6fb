"""`rml register`: what `rml up` tells its own server, told to one that others keep, on however many machines."""

from __future__ import annotations

from dataclasses import dataclass

from flows.service import api
from flows.service.state import Options
from rml_core.config.problem import Problem, Refused, RunFailed


@dataclass(frozen=True)
class Elsewhere(Options):
    """A service whose server is at `address`. `gpu_runs`, `cpu_runs`: runs at a time on all machines of a pool; 0: as
    many as their workers take. Deployments are of the pool `gpu` where `gpu_runs` is not 0."""

    address: str = ""

    @property
    def api(self) -> str:
        return self.address


def register(gpu_runs: int, cpu_runs: int) -> list[str]:
    """Tell the server that Prefect is set up for its pools, deployments and automations; gives the lines to be printed.

    Raises:
        Refused: no server is set up, or it wants a password.
        RunFailed: it cannot be reached, or refuses.
    """
    from prefect.settings import get_current_settings

    address = get_current_settings().api.url
    if not address:
        what = "no Prefect server is set up"
        raise Refused([Problem("", what, remedy="export PREFECT_API_URL=http://HOST:4200/api")])
    from flows.service import registration

    options = Elsewhere(gpu_runs=gpu_runs, cpu_runs=cpu_runs, address=address.rstrip("/"))
    try:
        with api.let_in():
            registration.pools(options)
            left_out = registration.deployments(options)
            registration.automations(options)
    except OSError as error:
        raise RunFailed(f"the Prefect server at {address} does not take it: {error}") from None
    pool = "gpu" if gpu_runs else "cpu"
    names = ", ".join(f"rml/{each['name']}" for each in registration.listed())
    return [f"registered at {address}: {names} on the pool {pool}", *left_out]
