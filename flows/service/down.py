"""`rml down`: everything ends, in good order."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

from flows.service import api, processes, profile, runs
from flows.service.environment import CLIENT_PASSWORD, PASSWORD, environment
from flows.service.state import Options, State
from flows.service.supervisor import SERVER, WORKERS, Supervisor
from rml_core.config.problem import RunFailed


def down(state: State) -> list[str]:
    """Take a service down; gives the lines to be printed.

    Its runs are told first, by their worker: they save what they have done, and go on at the next `rml up`.
    """
    if not state.folder.is_dir():
        return [f"nothing is up in {state.folder}"]
    with state.held():
        options = state.options()
        supervisor = Supervisor(state)
        if options is None or (not supervisor.is_up() and not processes.of(state)):
            back_again = _profile(state, options) if options is not None else []
            return [f"nothing is up in {state.folder}", *back_again]
        os.environ.update(environment(state, options))
        # Whoever may end it may be without its password in his shell.
        has = processes.variables(processes.number_in(state.pid))
        os.environ.update({name: has[name] for name in (PASSWORD, CLIENT_PASSWORD) if name in has})
        lines = []
        answers = api.is_healthy(options.api) and processes.listens(state, options.port)
        begun: list[dict[str, Any]] = []
        if answers:
            # A server that has too much to do is no reason to leave it up: the next start looks for itself.
            with suppress(*api.FAILURES):
                begun = runs.of_this_machine(options)
        # Before anything is ended: a command that is interrupted, or a full disk, leaves none of them behind.
        if begun:
            with suppress(OSError):
                runs.note(state, begun)
        if supervisor.is_up():
            supervisor.stop(*WORKERS)
        orphans = [process for found in processes.of_runs(state).values() for process in found]
        processes.end(orphans, 60)
        if begun:
            # A worker that was begun by hand goes on with its own.
            alive = processes.runs_here()
            back = runs.PutBack(0, [])
            with suppress(*api.FAILURES):
                back = runs.put_back(options, [run for run in begun if run["id"] not in alive], runs.TAKEN_DOWN)
            if back.count:
                which = f"{back.count} runs" if back.count > 1 else "1 run"
                lines.append(f"{which} in progress: `rml up` goes on with {'them' if back.count > 1 else 'it'}")
            lines += back.refused
        if supervisor.is_up():
            supervisor.stop(SERVER)
            supervisor.end()
        left = processes.of(state)
        processes.tell(left, signal.SIGKILL)
        processes.wait_until_gone(state, 5)
        for stale in (state.socket, state.pid):
            stale.unlink(missing_ok=True)
        return [*lines, *_profile(state, options), f"down: {options.url}"]


def _profile(state: State, options: Options) -> list[str]:
    """The user's own Prefect profile again; a line where that cannot be."""
    try:
        profile.take_back(state, options)
    except RunFailed as failed:
        return [f"warning: {failed}"]
    return []
