"""The Dask cluster for work over many samples: embedded threads, or the cluster at an address."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from rml_core.config.problem import RunFailed
from tasks.ranks import threads

LOOPBACK = "127.0.0.1:0"
# So long a scheduler at an address may take to answer.
ANSWER_S = 10.0

Map = Callable[[Callable[[Any], Any], list[Any]], Iterable[Any]]
# Is told each result as it comes, and how many items there are.
Watch = Callable[[Any, int], None]


@contextmanager
def mapper(scheduler: str | None, watch: Watch | None = None) -> Iterator[Map]:
    """Give a `map(function, items)` that runs on the cluster at `scheduler`, or on an embedded one.

    Results come in the order of the items; the first failure is raised and the rest is cancelled. An embedded one
    is started by the first call.

    Raises:
        RunFailed: no scheduler answers at the address, needed or not.
    """
    with ExitStack() as stack:
        clients: list[Any] = []
        if scheduler is not None:
            clients.append(stack.enter_context(_client(scheduler)))

        def on_cluster(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
            if not clients:
                clients.append(stack.enter_context(_client(scheduler)))
            futures = clients[0].map(function, items, pure=False)
            try:
                if watch is not None:
                    for result in _as_they_come(futures):
                        watch(result, len(items))
                return clients[0].gather(futures)
            finally:
                clients[0].cancel(futures)

        yield on_cluster


def _as_they_come(futures: list[Any]) -> Iterator[Any]:
    """The results, those that fail left out."""
    import distributed

    # The package has no types of its own.
    dask: Any = distributed
    for future in dask.as_completed(futures):
        if future.status == "finished":
            yield future.result()


@contextmanager
def _client(scheduler: str | None) -> Iterator[Any]:
    import distributed

    # The import sets the level to INFO.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    # The package has no types of its own.
    dask: Any = distributed

    if scheduler is None:
        embedded = dask.LocalCluster(
            n_workers=1,
            threads_per_worker=threads(),
            processes=False,
            memory_limit=0,
            # The dashboards cannot be left out: any free port, for this machine alone.
            dashboard_address=LOOPBACK,
            worker_dashboard_address=LOOPBACK,
        )
        with embedded, dask.Client(embedded) as client:
            yield client
        return
    try:
        client = dask.Client(scheduler, timeout=ANSWER_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise RunFailed(f"no Dask scheduler answers at {scheduler} ({error})") from error
    with client:
        yield client
