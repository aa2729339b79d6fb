"""What a run shows on its page, written by a thread of its own: a server that is slow or away holds no run up.

A place of the page has one artifact, which is changed and not added to. Of what is put there in quick succession the
newest alone is written, and what is dear to make is made the more seldom.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from httpx import HTTPStatusError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from rml_core.config.problem import redacted
from tasks.progress import log

# Seconds: between two changes of an artifact, until an answer is given up, and for the last ones at the end of a run.
BETWEEN, ANSWER, LAST = 2.0, 10.0, 10.0
# Seconds until what the server did not take is tried again: the first time, and at most.
AGAIN, LATEST = 1.0, 15.0
# Of the time of a run, for making and sending what one place shows.
SHARE = 0.003


@dataclass(frozen=True)
class Content:
    """What an artifact holds. `kind`: markdown, table (as JSON) or progress (percent). `task_run`: whose
    it is; None: the flow run's, which then needs a key. `between`: seconds until its next change."""

    kind: str
    data: Any
    description: str
    key: str | None = None
    task_run: UUID | None = None
    between: float = BETWEEN


@dataclass
class _Place:
    """One artifact. `make`: its next content; None: what it shows is up to date. Not before `due`."""

    make: Callable[[], Content | None] | None = None
    artifact: UUID | None = None
    due: float = 0.0


class Board:
    """The artifacts of the flow run `flow_run`. `again`: an earlier attempt at it may have left some, which are taken
    over by their keys."""

    def __init__(self, flow_run: UUID, again: bool = False):
        self.flow_run = flow_run
        self._again = again
        self._places: dict[Hashable, _Place] = {}
        self._changed = threading.Condition()
        self._closing = self._warned = False
        # What is logged there belongs to this flow run, too.
        context = contextvars.copy_context()
        # No daemon: one that is ended in the middle of a drawing takes the process with it. It ends by itself.
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="rml-page")
        self._started = False

    def put(self, place: Hashable, make: Callable[[], Content | None], *, after: float = 0.0) -> None:
        """What `make` gives is shown at `place` soon: the first time in `after` seconds. It is called in the thread of
        the board, or never, where something newer comes in time; None: nothing is shown."""
        with self._changed:
            if place not in self._places:
                self._places[place] = _Place(due=time.monotonic() + after)
            there = self._places[place]
            waiting, there.make = there.make is not None, make
            if not self._started:
                self._started = True
                self._thread.start()
            elif not waiting:
                self._changed.notify()

    def warn(self, why: str) -> None:
        """Say once that the page is not whole."""
        if not self._warned:
            self._warned = True
            log.warning(f"warning: the page of this run in Prefect's UI is not up to date: {redacted(why)}")

    def close(self, patience: float = LAST) -> None:
        """Write what is not written yet, for `patience` seconds at most."""
        with self._changed:
            if not self._started or self._closing:
                return
            self._closing = True
            self._changed.notify()
        self._thread.join(patience)
        if self._thread.is_alive():
            self.warn(f"the server has not taken it in {patience:.0f} s")

    def _work(self) -> None:
        # Prefect's client would try again by itself, for minutes.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            wait = AGAIN
            ended: float | None = None
            while True:
                try:
                    # An address that does not answer fails here, too.
                    with get_client(sync_client=True, httpx_settings={"timeout": ANSWER}) as client:
                        self._take_over(client)
                        while (found := self._next()) is not None:
                            self._show(client, *found)
                            wait = AGAIN
                        return
                except Exception as error:
                    self.warn(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
                with self._changed:
                    ended = ended or (time.monotonic() + LATEST if self._closing else None)
                    if ended is not None and time.monotonic() > ended:
                        return
                    self._changed.wait(wait)
                wait = min(2 * wait, LATEST)

    def _next(self) -> tuple[_Place, Callable[[], Content | None]] | None:
        """What is to be shown now, waited for; None: all is shown, and nothing more comes."""
        with self._changed:
            while True:
                open_places = [place for place in self._places.values() if place.make is not None]
                first = min(open_places, key=lambda place: place.due, default=None)
                if first is None and self._closing:
                    return None
                now = time.monotonic()
                if first is not None and (self._closing or first.due <= now):
                    make, first.make = first.make, None
                    assert make is not None
                    return first, make
                self._changed.wait(first.due - now if first is not None else None)

    def _show(self, client: SyncPrefectClient, place: _Place, make: Callable[[], Content | None]) -> None:
        began = time.thread_time()
        try:
            content = make()
        except Exception as error:
            # Tried again with what comes next: the server has no part in it.
            self.warn(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            content = None
        if content is not None:
            try:
                self._send(client, place, content)
            except Exception:
                with self._changed:
                    place.make = place.make or (lambda: content)
                    # What is refused for what it is does not keep others waiting.
                    place.due = time.monotonic() + BETWEEN
                raise
        between = content.between if content is not None else BETWEEN
        place.due = time.monotonic() + max(between, (time.thread_time() - began) / SHARE)

    def _send(self, client: SyncPrefectClient, place: _Place, content: Content) -> None:
        if place.artifact is not None:
            change = {"data": content.data, "description": content.description}
            try:
                # `update_artifact` would tell of it as an event, too: a dot in the graph for every one.
                client.request("PATCH", "/artifacts/{id}", json=change, path_params={"id": place.artifact})
                return
            except HTTPStatusError as error:
                if error.response.status_code != 404:
                    raise
        created = client.create_artifact(
            ArtifactCreate(
                key=content.key,
                type=content.kind,
                description=content.description,
                data=content.data,
                flow_run_id=self.flow_run,
                task_run_id=content.task_run,
            )
        )
        place.artifact = created.id

    def _take_over(self, client: SyncPrefectClient) -> None:
        """The artifacts that an earlier attempt has left are this one's places."""
        if not self._again:
            return
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[self.flow_run]))
        with self._changed:
            for left in client.read_artifacts(artifact_filter=mine, limit=200):
                if left.key and left.task_run_id is None:
                    self._places.setdefault(left.key, _Place()).artifact = left.id
        self._again = False
