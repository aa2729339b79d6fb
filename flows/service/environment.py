"""What the server, the workers and the runs of a service find in their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from flows.service.processes import MARK
from flows.service.state import Options, State

# What would lead them elsewhere: whose shell `rml up` was typed in has a server and a profile of his own.
FOREIGN = ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_API_KEY")

DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
PASSWORD = "PREFECT_SERVER_API_AUTH_STRING"
CLIENT_PASSWORD = "PREFECT_API_AUTH_STRING"
WEBHOOK = "RML_WEBHOOK"
METRICS_PORT = "RML_METRICS_PORT"

# What may be set otherwise in the shell in which `rml up` is typed.
DEFAULTS = {
    # A run file is picked up within a second; the question costs the server 4 ms.
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    # How soon a dead run is seen: the smallest that Prefect takes.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # Schedules fire on the minute: a run need not be begun before.
    "PREFECT_WORKER_PREFETCH_SECONDS": "2",
    # A server that was killed knows whose turn it is when it is back: a run whose turn it has forgotten is ended.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # One that was killed sees what follows the events of before.
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "flows.service.ordering",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # For Prometheus, at /api/metrics.
    "PREFECT_SERVER_METRICS_ENABLED": "true",
    # The database does not grow for ever: what ended 90 days ago goes, with its logs and artifacts. Events go after 7.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs,orphans",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(90 * 24 * 3600),
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_COLORS": "false",
    # A line for each phase that ends well says nothing that the page does not show.
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
}


def environment(state: State, options: Options, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of all processes of a service: that of `rml up`, led to this server and this folder."""
    found = {key: value for key, value in given.items() if key not in FOREIGN}
    found = {**DEFAULTS, METRICS_PORT: str(options.port + 1), **found}
    # The server keeps it, encrypted: the runs need not know it.
    found.pop(WEBHOOK, None)
    if found.get(PASSWORD):
        found.setdefault(CLIENT_PASSWORD, found[PASSWORD])
    return {
        **found,
        MARK: str(state.folder),
        "RML_STATE": str(state.folder),
        "PREFECT_HOME": str(state.prefect),
        "PREFECT_API_URL": options.api,
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PYTHONUNBUFFERED": "1",
    }
