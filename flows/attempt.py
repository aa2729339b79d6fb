"""Attempts at a flow run: one that is started again, after a crash or by hand, goes on with what the run has left.

A flow run keeps its id however often its flow is started. The id is the run's own id in checkpoints, so that an attempt
goes on from this run's newest one and from nobody else's. Imports Prefect only within a flow run.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from rml_core.config.problem import Problem, Refused, RunFailed, shown
from tasks.progress import log

# So often a flow run is started again by itself; started by hand it may be as often again.
RETRIES = 2
# The message of the state in which an automation puts a crashed flow run, by which its restarts are counted.
RESTARTED = "Started again by itself: the process of the attempt before is gone"
# Seconds between two looks whether the attempt before still writes, and between two whether the run has ended by it.
LOOK_S, ASK_S = 0.5, 5.0

# The kernel gives it up when this process ends.
_alone: dict[str, socket.socket] = {}


@dataclass(frozen=True)
class Attempt:
    """`run_id`: that of the flow run, 32 hexadecimal digits. `number`: 1 is the first."""

    run_id: str
    number: int
    _asked: list[float] = field(default_factory=list, compare=False, repr=False)

    @property
    def goes_on(self) -> bool:
        """There was an attempt before."""
        return self.number > 1

    def wait(self, held: Refused) -> None:
        """Wait a moment for who holds a place that this run writes to: the attempt before may live on, where it was
        taken for dead.

        Raises:
            prefect.exceptions.Abort: it has ended the run meanwhile.
        """
        if not self._asked:
            what = "; ".join(dict.fromkeys(problem.what for problem in held.problems))
            log.warning(f"attempt {self.number} waits until an earlier one lets go: {what}")
        if not self._asked or time.monotonic() - self._asked[-1] >= ASK_S:
            self._asked[:] = [time.monotonic()]
            _end_if_ended(self.run_id)
        time.sleep(LOOK_S)


def begin() -> Attempt:
    """The attempt that this process makes at its flow run.

    Raises:
        RunFailed: the flow run has been started again by itself as often as it may.
        prefect.exceptions.Abort: the attempt before, taken for dead, has ended the run.
    """
    from prefect.runtime import flow_run

    run_id, number = UUID(flow_run.id).hex, flow_run.run_count
    attempt = Attempt(run_id, number)
    if attempt.goes_on:
        refuse_one_too_many(restarts(_states(run_id)), most_restarts())
        log.info(f"attempt {number} at this run")
    # The attempt before ends its run only when it has let go of its places: it is waited for until it is gone.
    name = f"\0rml-attempt-{run_id}"
    while run_id not in _alone:
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            own.bind(name)
            _alone[run_id] = own
        except OSError:
            own.close()
            attempt.wait(Refused([Problem("", "its process is still there")]))
    if attempt._asked:
        _end_if_ended(run_id)
    return attempt


def most_restarts() -> int:
    """`RML_RETRIES`: so often a flow run is started again by itself.

    Raises:
        Refused: the variable is not a number.
    """
    given = os.environ.get("RML_RETRIES", str(RETRIES))
    if not given.isdecimal():
        raise Refused([Problem("RML_RETRIES", f'"{given}" does not fit', "a number of restarts, 0 or more")])
    return int(given)


def restarts(messages: list[str | None]) -> int:
    """How often a flow run was started again by itself since somebody started it, from the messages of its scheduled
    states in their order."""
    count = 0
    for message in messages:
        count = count + 1 if message == RESTARTED else 0
    return count


def refuse_one_too_many(restarts: int, most: int) -> None:
    """Raises `RunFailed` where a flow run is started again once more than it may."""
    if restarts > most:
        times = "once" if most == 1 else f"{most} times"
        began = "was not started again by itself" if not most else f"was started again by itself {times}"
        raise RunFailed(
            f"the process of this run is gone, and it {began} (RML_RETRIES is {most}): look in its log and in the "
            "worker's for what ends it (memory, a device, the machine); prefect flow-run retry goes on from its newest "
            "checkpoint"
        )


def _states(run_id: str) -> list[str | None]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(UUID(run_id))
    return [state.message for state in sorted(states, key=lambda state: state.timestamp) if state.is_scheduled()]


def _end_if_ended(run_id: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Abort

    state: Any = None
    # Without the server nothing is known: who waits goes on waiting.
    with suppress(Exception), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(run_id)).state
    if state is not None and state.is_final():
        raise Abort(f"the earlier attempt has ended this run: {shown(state.name)}")
