"""Where work over many samples is done: in threads of this process, or on the Dask cluster at an address."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from rml_core.config import roots
from rml_core.config.problem import Problem, Refused, RunFailed, listed, shown
from rml_core.config.trust import Origin, here
from tasks.progress import log
from tasks.ranks import threads

# Addresses with commas between them: those that a worker takes from others. Unset, and without `RML_ROOTS`: those of
# its own machine.
SCHEDULERS = "RML_SCHEDULERS"
# So long a scheduler at an address may take to answer.
ANSWER_S = 10.0
# So long a cluster may have no worker while there is work for one, or a scheduler may let nobody in.
ALONE_S = 60.0
# So often who waits for one looks whether it is there.
LOOK_S = 0.1

Map = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]
# Is told each result as it comes, and how many items there are.
Watch = Callable[[Any, int], None]


# What Dask reaches a scheduler by; without a protocol it is tcp.
ADDRESS = re.compile(r"(?:(?:tcp|tls|ws|wss|ucx)://)?(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):(\d{1,5})/?")


def check_address(scheduler: str | None) -> None:
    """Raises `Refused` where `scheduler` cannot be the address of one, whoever may listen there."""
    found = ADDRESS.fullmatch(scheduler) if scheduler is not None else None
    if scheduler is not None and (found is None or not 0 < int(found[2]) < 1 << 16):
        raise Refused([Problem("--scheduler", f"{shown(scheduler)} does not fit", "an address, as tcp://host:8786")])
    if scheduler is not None and found is not None and here() is Origin.RECEIVED:
        _trust(scheduler, found[1])


def _trust(scheduler: str, host: str) -> None:
    """Raises `Refused` where a run that came from somebody else is not to connect there: what a scheduler answers is
    unpickled, so that whoever keeps it can have any code run here.

    Unless the worker says which ones it trusts, that is whoever listens on this machine; with `RML_ROOTS` nobody is."""
    said = os.environ.get(SCHEDULERS)
    if said is None and roots.roots() is None:
        if _is_here(host):
            return
        allowed = f"one of the worker's own machine, as tcp://127.0.0.1:8786, or those that {SCHEDULERS} names"
    else:
        trusted = [each.strip() for each in (said or "").split(",") if each.strip()]
        if scheduler in trusted:
            return
        allowed = f"{listed(trusted) or 'none'} ({SCHEDULERS})"
    what = f"{shown(scheduler)} is not one that this worker trusts"
    raise Refused([Problem("--scheduler", what, allowed, "leave it out, or ask whoever runs the worker")])


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@contextmanager
def mapper(scheduler: str | None, watch: Watch | None = None) -> Iterator[Map]:
    """Give a `map(function, items)` that runs on the cluster at `scheduler`, or in threads.

    Results come in the order of the items; the first failure is raised and the rest is cancelled.

    Raises:
        RunFailed: no scheduler answers at the address, needed or not; it has no worker for `ALONE_S`.
    """
    if scheduler is None:
        yield lambda function, items: _in_threads(function, items, watch)
        return
    with _client(scheduler) as client:

        def on_cluster(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
            Cluster(client, scheduler).wait()
            futures = client.map(function, items, pure=False)
            try:
                if watch is not None:
                    for result in _as_they_come(client, futures):
                        watch(result, len(items))
                given: list[Any] = client.gather(futures)
                return given
            except BaseException:
                # Only then: that tasks are cancelled is told to all clients of a scheduler.
                client.cancel(futures)
                raise

        yield on_cluster


def _in_threads(function: Callable[[Any], Any], items: list[Any], watch: Watch | None) -> list[Any]:
    with ThreadPoolExecutor(threads(), "rml-prepare") as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            if watch is not None:
                for future in as_completed(futures):
                    watch(future.result(), len(items))
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class Cluster:
    """The cluster at an address, as who submits tasks one by one needs it. `stopped`: nobody wants to wait any more
    for workers to come."""

    def __init__(self, client: Any, address: str, stopped: Callable[[], bool] = lambda: False):
        self._client, self._address, self._stopped = client, address, stopped
        self._alone_since: float | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return _Task(self._client.submit(function, *arguments, pure=False), self._address)
        except Exception as error:
            raise self._gone(error) from error

    def check(self) -> None:
        """Raises `RunFailed`: there has been no worker for `ALONE_S`, or there is none and the run is to stop; or the
        scheduler is gone."""
        self._is_alone()

    def wait(self) -> None:
        """Until there is a worker. Raises `RunFailed` as `check` does."""
        while self._is_alone():
            time.sleep(LOOK_S)

    def _is_alone(self) -> bool:
        try:
            if self._client.nthreads():
                self._alone_since = None
                return False
        except Exception as error:
            raise self._gone(error) from error
        now = time.monotonic()
        if self._stopped():
            raise RunFailed(f"no Dask worker is at {self._address}; interrupted while waiting for one")
        if self._alone_since is None:
            self._alone_since = now
            log.info(f"waiting for a Dask worker at {self._address}")
        if now - self._alone_since >= ALONE_S:
            raise RunFailed(f"no Dask worker is left at {self._address}, and none has come for {ALONE_S:g} s")
        return True

    def _gone(self, error: Exception) -> RunFailed:
        """Clients say it with errors of many kinds, and some without a word."""
        why = " ".join(str(error).split()) or type(error).__name__
        return RunFailed(f"the Dask scheduler at {self._address} is gone ({why})")


class _Task:
    """What was submitted, as a `concurrent.futures.Future`."""

    def __init__(self, future: Any, address: str):
        self._future, self._address = future, address

    def result(self) -> Any:
        from distributed.scheduler import KilledWorker

        try:
            return self._future.result()
        except KilledWorker as error:
            raise RunFailed(
                f"Dask workers at {self._address} have died again and again over one task: has each the memory for it?"
            ) from error
        except CancelledError as error:
            raise RunFailed(f"the Dask scheduler at {self._address} has dropped a task") from error

    def cancel(self) -> None:
        self._future.cancel()

    def add_done_callback(self, function: Callable[[Any], Any]) -> None:
        self._future.add_done_callback(lambda _: function(self))


@contextmanager
def cluster(scheduler: str, stopped: Callable[[], bool] = lambda: False) -> Iterator[Cluster]:
    """The cluster at `scheduler`; `stopped`: as a `Cluster` has it. Raises `RunFailed`: nobody answers there."""
    with _client(scheduler) as client:
        yield Cluster(client, scheduler, stopped)


def _as_they_come(client: Any, futures: list[Any]) -> Iterator[Any]:
    """The results, those that fail left out."""
    import distributed

    # The package has no types of its own.
    dask: Any = distributed
    for future in dask.as_completed(futures, loop=client.loop):
        if future.status == "finished":
            yield future.result()


def _client(scheduler: str) -> Any:
    import distributed

    # The import sets the level to INFO.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    # A scheduler that is gone is said by the run.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    return _connected(distributed, scheduler)


def _connected(dask: Any, scheduler: str) -> Any:
    """A client of the scheduler at an address. Raises `RunFailed`: nobody answers there."""
    # Busy machines lose that race for long, and the scheduler is there.
    until = time.monotonic() + ALONE_S
    while True:
        try:
            # Not Dask's default: one whose scheduler is gone would be asked by whatever uses dask in this process.
            return dask.Client(scheduler, timeout=ANSWER_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise RunFailed(f"no Dask scheduler answers at {scheduler} ({error})") from error
        except AssertionError as error:
            # What the scheduler tells all its clients just then comes along with its first word to a new one, which
            # takes no other word for the first.
            if time.monotonic() > until:
                raise RunFailed(f"the Dask scheduler at {scheduler} lets nobody in") from error
            time.sleep(LOOK_S)
