"""What `rml submit` does with the server: it makes a flow run of a deployment, and says how one goes on."""

from __future__ import annotations

import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
    TaskRunFilter,
    TaskRunFilterStartTime,
)
from prefect.client.schemas.objects import FlowRun, Log, State, StateType, TaskRun
from prefect.client.schemas.sorting import LogSort, TaskRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings
from prefect.utilities.urls import url_for

from flows.service.runs import TAKEN_DOWN
from rml_core.config.problem import Problem, Refused
from tasks.progress import log as run_log

# Seconds between two looks at the server; the most while it does not answer.
LOOK_S, MOST_S = 1.0, 5.0
# A run that has crashed may be started again, by an automation or by its worker, which looks later and seldom: so long
# it is waited for.
AGAIN_S = 30.0
# Lines of a log come to the server in batches of several processes: so much later than lines written after them.
LATE = timedelta(seconds=15)
PAGE = 200
# Seconds until who waits for an answer is told so, until an answer is given up, and so often it is asked for again.
SLOW_S, ANSWER_S, AGAIN = 5.0, 20.0, 2

# What a terminal state is as an exit status; a run that is cancelled is one that was interrupted.
STATUS = {StateType.COMPLETED: 0, StateType.FAILED: 1, StateType.CRASHED: 1, StateType.CANCELLED: 130}
# What Prefect puts before the text of an exception that ends a flow.
RAISED = re.compile(r"Flow run encountered an exception: (?:(\w+): )?")

NO_SERVER = "no Prefect server is set up"
REMEDY = "rml up puts one up here; prefect config set PREFECT_API_URL=http://HOST:4200/api names another one"


def api_url() -> str | None:
    return get_current_settings().api.url


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """A client that says at once when there is no server, and soon when one does not answer.

    Raises:
        Refused: there is none, or it does not let us in.
        SystemExit: it has not answered for a minute; said on standard error, exit status 1.
    """
    url = api_url()
    if url is None:
        raise Refused([Problem("", NO_SERVER, remedy=REMEDY)])
    most = f"{(AGAIN + 1) * ANSWER_S:g} s"
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: AGAIN}),
            _telling(f"the Prefect server at {url} does not answer; waiting, {most} at most"),
            get_client(sync_client=True, httpx_settings={"timeout": ANSWER_S}) as client,
        ):
            yield client
    except (httpx.ReadTimeout, httpx.WriteTimeout):
        print(f"the Prefect server at {url} has not answered for {most}; rml status looks at it", file=sys.stderr)
        raise SystemExit(1) from None
    except httpx.TransportError as error:
        what = f"no Prefect server answers at {url}: {_why(error)}"
        raise Refused([Problem("", what, remedy=f"rml status says whether it runs; {REMEDY}")]) from None
    except PrefectHTTPStatusError as error:
        status = error.response.status_code
        if status in (401, 403):
            what = f"the Prefect server at {url} asks who you are"
            remedy = "set PREFECT_API_AUTH_STRING=user:password, or PREFECT_API_KEY"
        else:
            what, remedy = f"the Prefect server at {url} does not take it ({status}): {_detail(error)}", ""
        raise Refused([Problem("", what, remedy=remedy)]) from None


@contextmanager
def _telling(line: str) -> Iterator[None]:
    """Say `line` on standard error if what is done in this context takes long."""
    late = threading.Timer(SLOW_S, lambda: print(line, file=sys.stderr, flush=True))
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _why(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _detail(error: PrefectHTTPStatusError) -> str:
    try:
        return " ".join(str(error.response.json()["detail"]).split())
    except (ValueError, KeyError, TypeError):
        return _why(error)


def submit(deployment: str, parameters: dict[str, Any]) -> FlowRun:
    """Make a flow run of the deployment `rml/NAME`.

    Raises:
        Refused: there is no server, or no such deployment on it; the server does not take the parameters.
    """
    with server() as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            what = f"the Prefect server at {api_url()} has no deployment {deployment}"
            raise Refused([Problem("--deployment", what, remedy="rml up makes them; prefect deployment ls")]) from None
        # What is asked again after a lost answer makes no second run.
        return client.create_flow_run_from_deployment(found.id, parameters=parameters, idempotency_key=uuid.uuid4().hex)


def page_of(run: FlowRun) -> str:
    return url_for(run) or str(run.id)


@dataclass
class Watch:
    """Follows the flow run `id`: `say` is called for each line, `warn` for what is amiss."""

    id: UUID
    say: Callable[[str], None] = print
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr)
    _lines: set[UUID] = field(default_factory=set)
    _newest: datetime | None = None
    _phases: set[UUID] = field(default_factory=set)
    _last_phase: datetime | None = None
    _told: str = ""

    def until_the_end(self) -> int:
        """Say how the run goes until it has ended: the exit status (`STATUS`; 2 where it was refused before any
        work)."""
        away, crashed = 0.0, 0.0
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            while True:
                try:
                    state = self._look()
                    if away:
                        self.warn("the server answers again")
                        away = 0.0
                except ObjectNotFound:
                    self.warn("the run was deleted on the server")
                    return 1
                except (httpx.TransportError, PrefectHTTPStatusError) as error:
                    if not away:
                        self.warn(f"the server does not answer ({_why(error)}): the run goes on without it; asking on")
                    away = min(away + LOOK_S, MOST_S)
                    time.sleep(away)
                    continue
                if state is not None and state.is_final():
                    crashed = crashed or time.monotonic()
                    if state.type != StateType.CRASHED or time.monotonic() - crashed > AGAIN_S:
                        return self._end(state)
                else:
                    crashed = 0.0
                time.sleep(LOOK_S)

    @cached_property
    def _filters(self) -> FlowRunFilter:
        return FlowRunFilter(id=FlowRunFilterId(any_=[self.id]))

    def _look(self) -> State | None:
        """Say what is new since the last look; the state of the run."""
        with get_client(sync_client=True) as client:
            # Asked first: what a run has said before its end is there when its end is.
            state = client.read_flow_run(self.id).state
            self._say_state(state)
            self._say_phases(client)
            for line in self._new_lines(client):
                (self.say if line.level < 30 else self.warn)(line.message)
        return state

    def _say_state(self, state: State | None) -> None:
        """What a state means for who waits; between being made and being begun a run has several names."""
        if state is None or (state.is_final() and state.type != StateType.CRASHED):
            return
        if state.name == "AwaitingRetry":
            line = state.message if state.message == TAKEN_DOWN else "is started again"
        elif state.is_scheduled() or state.is_pending():
            # Late, too: one worker or another takes it, or `rml status` says that there is none.
            line = "waits for a worker (rml status says what runs)"
        elif state.type == StateType.CRASHED:
            why = (state.message or "its process is gone").rstrip(".")
            line = f"crashed: {why}; it goes on by itself, as often as RML_RETRIES says"
        else:
            line = str(state.name).lower()
        if line != self._told:
            self._told = line
            (self.warn if state.type == StateType.CRASHED else self.say)(line)

    def _say_phases(self, client: SyncPrefectClient) -> None:
        """Those before and after the epochs, which have lines of their own."""
        since = TaskRunFilter(start_time=TaskRunFilterStartTime(after_=self._last_phase)) if self._last_phase else None
        order = TaskRunSort.EXPECTED_START_TIME_ASC
        runs = client.read_task_runs(flow_run_filter=self._filters, task_run_filter=since, limit=PAGE, sort=order)
        for run in sorted((run for run in runs if run.start_time), key=_began):
            if run.id in self._phases:
                continue
            self._phases.add(run.id)
            self._last_phase = max(self._last_phase or _began(run), _began(run))
            if "epoch" not in run.name:
                cached = run.state is not None and run.state.name == "Cached"
                self.say(f"{run.name}: done before" if cached else run.name)

    def _new_lines(self, client: SyncPrefectClient) -> Iterator[Log]:
        """What the run has logged, in its order; a line that came late is said late."""
        offset = 0
        since = LogFilterTimestamp(after_=self._newest - LATE) if self._newest is not None else None
        while True:
            wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self.id]), timestamp=since)
            page = client.read_logs(wanted, limit=PAGE, offset=offset, sort=LogSort.TIMESTAMP_ASC)
            for line in page:
                if line.id in self._lines or line.id is None:
                    continue
                self._lines.add(line.id)
                self._newest = max(self._newest or line.timestamp, line.timestamp)
                if line.name == run_log.name:
                    yield line
            offset += len(page)
            if len(page) < PAGE:
                return

    def _end(self, state: State) -> int:
        found = RAISED.match(message := state.message or "")
        said = message[found.end() :] if found else message
        name = "refused" if found and found[1] == "Refused" else str(state.name).lower()
        line = f"{name}:{chr(10) if name == 'refused' else ' '}{said}" if said else name
        (self.say if state.type == StateType.COMPLETED else self.warn)(line)
        return 2 if name == "refused" else STATUS[state.type]


def _began(run: TaskRun) -> datetime:
    assert run.start_time is not None
    return run.start_time
