"""GPUs on the server: how many runs may share one is edited there, and shown there while runs hold it.

Each GPU of a machine is a global concurrency limit `gpu-<host>-<index>`. It is a sign, not the lock: what the server
knows is a minute old where a run was killed, and nothing while the server is away. The lock is the kernel's
(`rml_core.engine.turns`); only how many it lets in is read here.
"""

from __future__ import annotations

import contextvars
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tasks.devices import Device, Freed, Guard, Taken, Waiting, guarded
from tasks.progress import listening

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

# The shortest lease that Prefect gives: so long a killed run's slot is shown as taken.
LEASE_S = 60.0
RENEW_S = 20.0
# So often the limit is read while a run waits, and a slot is asked for that is not free yet.
LOOK_S = 2.0
# So long the server may take for its first answer.
ANSWER_S = 2.0


def name_of(device: Device) -> str:
    """The device's limit on the server."""
    index = int(device.name.rpartition(":")[2])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    # A process that sees some of the GPUs has numbers of its own for them.
    seen = device.torch != "cpu" and index < len(visible) and visible[index].strip().isdecimal()
    return limit_name(int(visible[index]) if seen else index)


def limit_name(index: int) -> str:
    """The limit of a GPU of this machine."""
    return f"gpu-{platform.node() or 'localhost'}-{index}"


@contextmanager
def shown(what: str, flow_run: UUID | None) -> Iterator[None]:
    """Within the context a run's devices are guarded as the server's limits say, and shown there as taken."""
    slots = _Slots(flow_run)
    try:
        with guarded(Guard(what, slots.runs)), listening(slots):
            yield
    finally:
        slots.end()


class _Slots:
    """Talks to the server in a thread of its own: a server that is away holds no run up."""

    def __init__(self, flow_run: UUID | None):
        self._flow_run = flow_run
        self._limits: dict[str, int | None] = {}
        self._answered, self._changed, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._taken: Device | None = None
        self._thread: threading.Thread | None = None

    def runs(self, device: Device) -> int | None:
        """The limit of `device` as it was last read; None: the server has none, or is not there."""
        name = name_of(device)
        if name not in self._limits:
            self._limits[name] = None
            self._start()
            self._answered.wait(ANSWER_S)
        return self._limits[name]

    def __call__(self, event: object) -> None:
        if isinstance(event, Taken):
            self._taken = event.device
        elif isinstance(event, Freed):
            self._taken = None
        elif not isinstance(event, Waiting):
            return
        self._changed.set()

    def end(self) -> None:
        """Say that nothing is taken any more, as long as it takes no time."""
        self._ended.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(ANSWER_S)

    def _start(self) -> None:
        self._answered.clear()
        self._changed.set()
        if self._thread is None:
            # The thread finds the server where this one does.
            run = contextvars.copy_context().run
            self._thread = threading.Thread(target=run, args=(self._talk,), name="slots of devices", daemon=True)
            self._thread.start()

    def _talk(self) -> None:
        from prefect.client.orchestration import get_client

        lease: UUID | None = None
        shown: Device | None = None
        while not self._ended.is_set() or lease is not None:
            self._changed.clear()
            taken = None if self._ended.is_set() else self._taken
            with suppress(Exception), get_client(sync_client=True) as client:
                if taken is None:
                    self._read(client)
                if lease is not None and shown != taken:
                    given_back, lease = lease, None
                    client.release_concurrency_slots_with_lease(given_back)
                elif lease is not None and _is_gone(client, lease):
                    lease = None
                if taken is not None and lease is None and self._limits.get(name_of(taken)):
                    lease = self._lease(client, taken)
                    shown = taken
            self._answered.set()
            if self._ended.is_set():
                break
            self._changed.wait(RENEW_S if lease is not None else LOOK_S)

    def _read(self, client: SyncPrefectClient) -> None:
        from prefect.exceptions import ObjectNotFound

        for name in list(self._limits):
            try:
                limit = client.read_global_concurrency_limit_by_name(name)
                self._limits[name] = limit.limit if limit.active else None
            except ObjectNotFound:
                self._limits[name] = None

    def _lease(self, client: SyncPrefectClient, device: Device) -> UUID:
        """A slot of the limit; raises where none is free: a killed run's slot is not free at once."""
        from prefect.client.schemas.objects import ConcurrencyLeaseHolder

        holder: Any = ConcurrencyLeaseHolder(type="flow_run", id=self._flow_run) if self._flow_run else None
        answer = client.increment_concurrency_slots_with_lease(
            names=[name_of(device)], slots=1, mode="concurrency", lease_duration=LEASE_S, holder=holder
        )
        return UUID(answer.json()["lease_id"])


def _is_gone(client: SyncPrefectClient, lease: UUID) -> bool:
    """Renew a lease; True: the server has given its slot back meanwhile, as it does where it heard nothing for long."""
    from httpx import HTTPStatusError

    try:
        client.renew_concurrency_lease(lease, LEASE_S)
    except HTTPStatusError as error:
        if error.response.status_code != 410:
            raise
        return True
    return False
