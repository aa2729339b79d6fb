"""`rml down`: everything ends, in good order."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

from flows.service import api, processes, profile, runs
from flows.service.environment import CLIENT_PASSWORD, PASSWORD, environment
from flows.service.state import State
from flows.service.supervisor import SERVER, WORKERS, Supervisor


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
            if options is not None:
                profile.take_back(state, options)
            return [f"nothing is up in {state.folder}"]
        os.environ.update(environment(state, options))
        # Whoever may end it may be without its password in his shell.
        has = processes.variables(processes.number_in(state.pid))
        os.environ.update({name: has[name] for name in (PASSWORD, CLIENT_PASSWORD) if name in has})
        lines = []
        answers = api.is_healthy(options.api)
        begun: list[dict[str, Any]] = []
        if answers:
            # A server that has too much to do is no reason to leave it up: the next start looks for itself.
            with suppress(*api.FAILURES):
                begun = runs.of_this_machine(options)
        if supervisor.is_up():
            supervisor.stop(*WORKERS)
        orphans = [process for found in processes.of_runs(state).values() for process in found]
        processes.end(orphans, 60)
        if begun:
            runs.note(state, begun)
            back = runs.PutBack(0, [])
            with suppress(*api.FAILURES):
                back = runs.put_back(options, begun, runs.TAKEN_DOWN)
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
        profile.take_back(state, options)
        return [*lines, f"down: {options.url}"]
