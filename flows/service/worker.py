"""The worker of a pool: Prefect's process worker, for runs that train for days.

It differs in three things. It waits for a server that is away, however long; Prefect's gives up after a while, and its
runs die with it. Told to end, it tells its runs first, and waits until they have saved what they have. And whose a run
is, it says before it takes it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import socket
import sys
import time
import warnings
from typing import Any

import psutil  # type: ignore[import-untyped]

from flows.service import api, metrics, survival

# Prefect gives a run as long when it is cancelled.
GRACE_SECONDS = 60.0


def main() -> None:
    """`python -m flows.service.worker POOL`: works until it is told to end."""
    parser = argparse.ArgumentParser(description="Take runs of a work pool, here.")
    parser.add_argument("pool")
    pool = parser.parse_args().pool
    url = os.environ["PREFECT_API_URL"]
    while not api.is_healthy(url):
        time.sleep(0.2)
    asyncio.run(_work(pool))


async def _work(pool: str) -> None:
    import httpx
    from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

    # Prefect says where a type of worker is registered a second time: this one is ours alone.
    warnings.filterwarnings("ignore", message="Type 'Patient'", category=UserWarning)

    class Configuration(ProcessJobConfiguration):
        """Runs are started by our own command, unless the pool or the deployment names another."""

        def prepare_for_flow_run(self, *arguments: Any, **options: Any) -> None:
            self.command = self.command or f"{shlex.quote(sys.executable)} -P -m flows.service.engine"
            super().prepare_for_flow_run(*arguments, **options)

    class Patient(ProcessWorker):
        """Outlives a server that is away, and takes no more runs once it has been told to end."""

        type = "process"
        job_configuration = Configuration
        ending = False
        in_progress = 0
        away = False

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.running: list[str] = []

        @property
        def busy(self) -> list[str]:
            """The runs that it is about to start, has started, or is about to report of."""
            return [*self.running, *map(str, self._submitting_flow_run_ids)]

        async def run(self, flow_run: Any, *arguments: Any, **options: Any) -> Any:
            self.in_progress += 1
            self.running.append(str(flow_run.id))
            try:
                return await super().run(flow_run, *arguments, **options)
            finally:
                self.in_progress -= 1
                self.running.remove(str(flow_run.id))

        async def _propose_pending_state(self, flow_run: Any) -> bool:
            """Says whose the run is before it is taken: Prefect's worker says so afterwards, and of a run whose worker
            was killed in between nobody knows that it is nobody's any more."""
            try:
                await self._give_worker_labels_to_flow_run(flow_run.id)
            except httpx.HTTPError as error:
                # It stays scheduled, and is asked for again.
                print(f"run {flow_run.name} is not taken yet: {type(error).__name__}: {error}", file=sys.stderr)
                return False
            return await super()._propose_pending_state(flow_run)

        async def get_and_submit_flow_runs(self) -> list[Any]:
            if self.ending:
                return []
            try:
                found = await super().get_and_submit_flow_runs()
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                    raise
                if not self.away:
                    print(f"the server is away: {type(error).__name__}: {error}", file=sys.stderr)
                self.away = True
                await asyncio.sleep(1)
                return []
            if self.away:
                print("the server is back", file=sys.stderr)
            self.away = False
            return found

        async def _sync_and_initialize(self) -> None:
            try:
                await super()._sync_and_initialize()
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                    raise

    _import_no_flow_for_hooks()
    worker = Patient(work_pool_name=pool, name=f"{pool} on {socket.gethostname()}", create_pool_if_not_found=False)
    metrics.serve(pool, lambda: worker.in_progress)
    keeping = asyncio.create_task(_keep(worker))
    working = asyncio.create_task(worker.start())

    async def end() -> None:
        worker.ending = True
        told: set[tuple[int, float]] = set()
        until = time.monotonic() + GRACE_SECONDS
        while worker.busy and time.monotonic() < until:
            # Some have no group of their own yet, or are started only now.
            _tell_runs(signal.SIGTERM, told)
            await asyncio.sleep(0.1)
        _tell_runs(signal.SIGKILL, set())
        until = time.monotonic() + 5
        while worker.in_progress and time.monotonic() < until:
            await asyncio.sleep(0.1)
        working.cancel()

    endings: list[asyncio.Task[None]] = []

    def told() -> None:
        if not endings:
            endings.append(asyncio.create_task(end()))

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told)
    try:
        await working
    except asyncio.CancelledError:
        if not endings:
            raise
    finally:
        keeping.cancel()


def _import_no_flow_for_hooks() -> None:
    """Prefect's worker imports the flow of a run that has crashed, to look for hooks: with ours comes torch, and the
    worker would hold it for good. They have none."""
    from prefect import Flow
    from prefect.client.orchestration import get_client
    from prefect.workers import process

    module: Any = process
    original = module.load_flow_from_flow_run
    without_hooks = Flow(_nothing, name="rml")

    async def resolve(flow_run: Any, *arguments: Any, **options: Any) -> Any:
        async with get_client() as client:
            deployment = await client.read_deployment(flow_run.deployment_id)
        if (deployment.entrypoint or "").startswith("flows."):
            return without_hooks
        return await original(flow_run, *arguments, **options)

    module.load_flow_from_flow_run = resolve


def _nothing() -> None:
    pass


async def _keep(worker: Any) -> None:
    """See to its runs as long as it works; what cannot be said now is said a little later."""
    answers_since = time.monotonic()
    while not worker.ending:
        try:
            answered_s = time.monotonic() - answers_since
            await asyncio.to_thread(survival.keep, worker.name, lambda: worker.busy, answered_s)
        except Exception as error:  # whatever it is: nobody else sees to them
            answers_since = time.monotonic()
            print(f"the runs of {worker.name} are not looked for: {type(error).__name__}: {error}", file=sys.stderr)
        await asyncio.sleep(survival.KEEP_S)


def _tell_runs(number: signal.Signals, told: set[tuple[int, float]]) -> None:
    """Tell the runs that have not been `told`, each once. Each is a process with a group of its own, in which its
    helpers are."""
    for child in _myself().children():
        try:
            who = (child.pid, child.create_time())
            if who not in told and os.getpgid(child.pid) == child.pid:
                os.killpg(child.pid, number)
                told.add(who)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue


def _myself() -> psutil.Process:
    return psutil.Process()


if __name__ == "__main__":
    main()
