"""What Prometheus may ask a worker: its process, and how many runs it has in progress.

The server answers for itself (`/api/metrics`). Prefect's own switch for clients listens on every address of the
machine, and its process worker does not look at it: this one listens on loopback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from flows.service.environment import METRICS_PORT
from flows.service.supervisor import WORKERS

HOST = "127.0.0.1"
LAST_PORT = 65535


def port_of(pool: str) -> int | None:
    """Where the worker of `pool` answers: `RML_METRICS_PORT` for the first pool, the next port for the next one. None:
    nowhere."""
    first = os.environ.get(METRICS_PORT, "")
    if not first.isdecimal() or int(first) == 0:
        return None
    port = int(first) + WORKERS.index(pool)
    return port if port <= LAST_PORT else None


def serve(pool: str, in_progress: Callable[[], float]) -> None:
    """Answer from now on, unless the port is taken: a worker works without."""
    port = port_of(pool)
    if port is None:
        return
    from prometheus_client import Gauge, start_http_server

    gauge = Gauge("rml_runs_in_progress", "Runs that this worker has begun and that have not ended.", ["pool"])
    gauge.labels(pool).set_function(in_progress)
    try:
        start_http_server(port, HOST)
    except OSError as error:
        print(f"no metrics: {HOST}:{port}: {error.strerror} (set {METRICS_PORT}, 0 for none)", file=sys.stderr)
