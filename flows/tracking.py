"""With Prefect: the server that runs are recorded on, and the local run of the flow."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.phases import Outcome
    from rml_core.check import Checked

_starting: threading.Thread | None = None


def is_configured() -> bool:
    """A Prefect server is set up: in the environment, a profile or a `prefect.toml`.

    Prefect takes a second to import: it is asked only where one of its files could name a server.
    """
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    if not any(path.exists() for path in (profiles, Path("prefect.toml"), Path("pyproject.toml"), Path(".env"))):
        return False
    quieten()
    from prefect.settings import get_current_settings

    return get_current_settings().api.url is not None


def quieten() -> None:
    """Prefect's own lines go to the server; the terminal shows ours. Before Prefect is imported."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    # A server takes a run for dead that gives no sign of life for long; Prefect's own default is too seldom for ours.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    # A line for each phase that ends well says nothing that the page does not show.
    os.environ.setdefault("PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL", "WARNING")


def start_server() -> None:
    """Start the ephemeral server, where none is configured, while the run's own work goes on."""
    global _starting
    quieten()
    # What lies in the working directory is no code of the server's.
    os.environ.setdefault("PYTHONSAFEPATH", "1")

    def start() -> None:
        from prefect.settings import get_current_settings

        if get_current_settings().api.url is None:
            from prefect.server.api.server import SubprocessASGIServer

            server = SubprocessASGIServer()
            try:
                server.start()
            except RuntimeError:
                # Whoever needs it next begins another one, and says why that cannot be.
                server.stop()

    _starting = threading.Thread(target=start, name="prefect server", daemon=True)
    _starting.start()


def run(checked: Checked, **parameters: Any) -> Outcome:
    """Run the flow `rml` in this process on what has been checked already."""
    import torch  # noqa: F401  (imported while the server starts)

    if _starting is not None:
        _starting.join()
    from flows.rml import run_checked

    return run_checked(checked, **parameters)
