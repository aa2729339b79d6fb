"""Attempts at a flow run: one that is started again, after a crash or by hand, goes on with what the run has left.

A flow run keeps its id however often its flow is started. The id is the run's own id in checkpoints, so that an attempt
goes on from this run's newest one and from nobody else's. Imports Prefect only within a flow run.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rml_core.config.problem import Problem, Refused, RunFailed, shown
from tasks.progress import log

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

# So often a flow run is started again by itself; started by hand it may be as often again.
RETRIES = 2
# The message of the state in which an automation puts a crashed flow run, by which its restarts are counted.
RESTARTED = "Started again by itself: the process of the attempt before is gone"
# Seconds between two looks whether the attempt before still writes, and between two whether the run has ended by it.
LOOK_S, ASK_S = 0.5, 5.0
# Seconds between two looks whether the run is to be cancelled: who started it tells it at once, if he lives.
WATCH_S = 10.0
# So long a run that is done waits for a server that is away, to tell it how it has ended.
AWAY_S = 1800.0

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

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """A context whose end the server is told of, also where it is away just then; within it, who cancels the run
        on the server reaches it, also where the worker that began it is gone."""
        from prefect.exceptions import TerminationSignal
        from prefect.settings import get_current_settings

        url = get_current_settings().api.url
        if url is None:
            yield
            return
        done = threading.Event()
        threading.Thread(target=_watch, args=(url, self.run_id, done), name="cancelling", daemon=True).start()
        try:
            yield
        except TerminationSignal:
            # While a batch is finished the engine cannot be told what the signal is for, and would take it for a crash.
            if _state(url, self.run_id) == "CANCELLING":
                _intend_to_cancel()
            raise
        except Exception:
            _await_server(url)
            raise
        finally:
            done.set()
        _await_server(url)

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


@contextmanager
def made() -> Iterator[Attempt]:
    """The attempt that this process makes at its flow run, as long as the flow's work lasts: before all that may end
    the process, so that it is counted."""
    attempt = begin()
    with attempt.lasting():
        yield attempt


def begin() -> Attempt:
    """The attempt that this process makes at its flow run.

    Raises:
        RunFailed: the flow run has been started again by itself as often as it may.
        prefect.exceptions.Abort: the attempt before, taken for dead, has ended the run.
    """
    from prefect.runtime import flow_run

    run_id, number = UUID(flow_run.id).hex, flow_run.run_count
    attempt = Attempt(run_id, number)
    states = _states(run_id)
    if is_cancelled(states):
        _end_cancelled(run_id)
    refuse_one_too_many(restarts(states), most_restarts())
    if attempt.goes_on:
        log.info(f"attempt {number} at this run")
    # The attempt before ends its run only when it has let go of its places: it is waited for until it is gone.
    name = f"\0rml-attempt-{run_id}"
    while run_id not in _alone:
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            own.bind(name)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                own.close()
                attempt.wait(Refused([Problem("", "its process is still there")]))
                continue
            # A machine without such names: the places that a run claims are then all that keeps two apart.
            log.warning(f"whether the attempt before is still there is not known: {error.strerror or error}")
        _alone[run_id] = own
    if attempt._asked:
        _end_if_ended(run_id)
    if attempt.goes_on:
        _end_phases(run_id)
    return attempt


def _end_phases(run_id: str) -> None:
    """The phases that the attempt before was in have ended with it: the page would show them in progress for ever."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    begun = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    # It is a matter of how things look: where that fails, the run goes on.
    with suppress(Exception), get_client(sync_client=True) as client:
        for phase in client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(run_id)])),
            task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=begun)),
        ):
            message = "The process of this attempt is gone; the next one goes on"
            client.set_task_run_state(phase.id, Crashed(message=message), force=True)


def most_restarts() -> int:
    """`RML_RETRIES`: so often a flow run is started again by itself.

    Raises:
        Refused: the variable is not a number.
    """
    given = os.environ.get("RML_RETRIES", str(RETRIES))
    if not given.isdecimal():
        raise Refused([Problem("RML_RETRIES", f'"{given}" does not fit', "a number of restarts, 0 or more")])
    return int(given)


def restarts(states: Sequence[State]) -> int:
    """How often a flow run was started again by itself since somebody started it."""
    return len(_since_started(states)) - 1 if states else 0


def is_cancelled(states: Sequence[State]) -> bool:
    """Whether a flow run was cancelled since somebody started it: one that its process left crashed all the same was
    started again by itself, and is not to go on."""
    return any(state.is_cancelled() or state.is_cancelling() for each in _since_started(states)[:-1] for state in each)


def _since_started(states: Sequence[State]) -> list[list[State]]:
    """The states of each attempt since somebody started the run, the present one last."""
    attempts: list[list[State]] = [[]]
    for state in states:
        if state.is_scheduled():
            by_itself = state.message == RESTARTED
            # A server that is slow may say it twice.
            again = by_itself and not any(each.is_pending() or each.is_running() for each in attempts[-1])
            attempts = attempts if again else [*attempts, []] if by_itself else [[]]
        attempts[-1].append(state)
    return attempts


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


def _states(run_id: str) -> list[State]:
    """All states that the flow run has been in, in their order; a server that is away is waited for."""
    from httpx import TransportError
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    until = time.monotonic() + AWAY_S
    while True:
        try:
            with get_client(sync_client=True) as client:
                return sorted(client.read_flow_run_states(UUID(run_id)), key=lambda state: state.timestamp)
        except TransportError:
            if url is None or time.monotonic() > until:
                raise
            _await_server(url, "has begun, and waits for it")


def _end_cancelled(run_id: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Abort
    from prefect.states import Cancelled

    message = "Cancelled; its process ended before it could say so"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run_id), Cancelled(message=message), force=True)
    raise Abort(message)


def _watch(url: str, run_id: str, done: threading.Event) -> None:
    """End this process as cancelling does, where the run has been cancelled and nobody else sees to it."""
    asked = False
    while not done.wait(WATCH_S):
        kind = _state(url, run_id)
        if kind is None:
            continue
        if kind == "CANCELLED" or (kind == "CANCELLING" and asked):
            log.warning("cancelled on the server, and no worker has said so: this run ends")
            _cancel_here()
            return
        asked = kind == "CANCELLING"


def _state(url: str, run_id: str) -> str | None:
    """The type of the state that the run is in; None: the server does not say."""
    from flows.service import api

    try:
        return str(api.call(url, f"/flow_runs/{UUID(run_id)}", timeout=WATCH_S)["state_type"])
    except (*api.FAILURES, KeyError, TypeError):
        return None


def _cancel_here() -> None:
    # As Prefect's worker tells a run: the intent first. There is no worker that would say how the run has ended.
    _intend_to_cancel()
    os.environ["PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS"] = "true"
    os.kill(os.getpid(), signal.SIGTERM)


def _intend_to_cancel() -> None:
    """By this the engine knows what SIGTERM is for."""
    with suppress(ImportError, AttributeError):
        from prefect._internal import control_listener

        control_listener._set_intent("cancel")


def _await_server(url: str, run: str = "is done, and waits to tell it") -> None:
    from flows.service import api

    until = time.monotonic() + AWAY_S
    said = False
    while not api.is_healthy(url) and time.monotonic() < until:
        if not said:
            log.warning(f"the Prefect server at {url} does not answer: this run {run}")
        said = True
        time.sleep(1)


def _end_if_ended(run_id: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Abort

    state: Any = None
    # Without the server nothing is known: who waits goes on waiting.
    with suppress(Exception), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(run_id)).state
    if state is not None and state.is_final():
        raise Abort(f"the earlier attempt has ended this run: {shown(state.name)}")
