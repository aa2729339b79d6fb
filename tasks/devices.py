"""The GPU that a run works on: taken before the network is built, given back at the end; who has to wait waits here.

Runs of one machine never share a GPU, unless they are allowed to: `RML_GPU_RUNS` says how many may at a time. What
needs no GPU (load, slice, transform) is done before; a run on the CPU never waits.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from rml_core.config.problem import Problem, Refused, shown
from rml_core.engine.turns import Held, Holder, Turn
from tasks.progress import log, publish

# So often who waits looks whether it is his turn.
LOOK_S = 0.2
PRETENDED = re.compile(r"pretended:([1-9][0-9]*)")
WHERE = "neural_network.device"


@dataclass(frozen=True)
class Device:
    """A GPU. `name`: in run files and for people. `key`: the same for every process of this machine. `torch`: what the
    network is put on."""

    name: str
    key: str
    torch: str


@dataclass(frozen=True)
class Waiting:
    """Published by a run that waits for one of `devices`, again whenever others hold them."""

    devices: tuple[Device, ...]
    holders: tuple[Holder, ...]


@dataclass(frozen=True)
class Taken:
    """A handle on a device that this run holds, published as it takes it: `id` names what must be given back."""

    id: str
    device: Device


@dataclass(frozen=True)
class Freed:
    """Published when a run has given `device` back."""

    device: Device


@dataclass(frozen=True)
class Guard:
    """What who starts runs adds to the guard. `what`: goes before a run's own name. `runs(device)`: how many may share
    the device; None: `RML_GPU_RUNS` says so."""

    what: str = ""
    runs: Callable[[Device], int | None] = lambda device: None


_guard: ContextVar[Guard | None] = ContextVar("guard of devices", default=None)
_held: dict[str, Held] = {}


@contextmanager
def guarded(guard: Guard) -> Iterator[None]:
    """Within the context runs take devices under `guard`."""
    before = _guard.set(guard)
    try:
        yield
    finally:
        _guard.reset(before)


def runs_allowed() -> int:
    """How many runs may share a GPU: `RML_GPU_RUNS`, else 1.

    Raises:
        Refused: the variable is not a positive integer.
    """
    given = os.environ.get("RML_GPU_RUNS") or "1"
    if not given.isdecimal() or int(given) < 1:
        raise Refused([Problem("RML_GPU_RUNS", f"{shown(given)} does not fit", "a number of runs, 1 or more")])
    return int(given)


def pretended() -> int | None:
    """How many GPUs `RML_DEVICES` has this machine pretend: `pretended:2` are two whose work the CPU does, to try out
    how runs share them. None: it has those that it has.

    Raises:
        Refused: the variable says something else.
    """
    given = os.environ.get("RML_DEVICES")
    if not given:
        return None
    found = PRETENDED.fullmatch(given)
    if found is None:
        raise Refused([Problem("RML_DEVICES", f"{shown(given)} does not fit", "pretended:N, as pretended:2")])
    return int(found[1])


def devices() -> tuple[Device, ...]:
    """The GPUs that this process sees, or pretends to see. Raises `Refused` as `pretended` does."""
    count = pretended()
    if count is not None:
        return tuple(Device(f"cuda:{index}", f"pretended-{index}", "cpu") for index in range(count))
    import torch

    return tuple(_device(index) for index in range(torch.cuda.device_count()))


def _device(index: int) -> Device:
    import torch

    # Its number depends on CUDA_VISIBLE_DEVICES, which may differ between two processes.
    properties: Any = torch.cuda.get_device_properties(index)
    return Device(f"cuda:{index}", f"gpu-{getattr(properties, 'uuid', index)}", f"cuda:{index}")


def wanted(name: str) -> tuple[Device, ...]:
    """The devices of which a run file's `device` takes one; none: it works on the CPU.

    `auto` and `cuda` take any; `cuda:1` that one.

    Raises:
        Refused: the device is not there, or a variable of the environment is not what it should be.
    """
    if name == "cpu":
        return ()
    runs_allowed()
    there = devices()
    if name == "auto" or (name == "cuda" and there):
        return there
    found = tuple(device for device in there if device.name == name)
    if not found:
        some = "" if not there else f", {there[0].name}" + (f" to {there[-1].name}" if len(there) > 1 else "")
        what = f'"{name}" is not there: this machine has {len(there)} GPUs'
        raise Refused([Problem(WHERE, what, f"auto, cpu{some}")])
    return found


@contextmanager
def taken(name: str, what: str, do: Callable[..., Any]) -> Iterator[Taken | None]:
    """Hold a device that fits a run file's `device` as long as the context lasts; None: the CPU. `what`: the run, for
    those that wait for it.

    Where none is free, `do` calls the phase `wait for cuda:0`, which ends when this run has one. A signal ends the
    wait as it ends any phase.

    Raises:
        Refused: the device is not there.
        RunFailed: devices cannot be locked.
    """
    choice = wanted(name)
    if not choice:
        yield None
        return
    guard, allowed = _guard.get() or Guard(), runs_allowed()
    by_key = {device.key: device for device in choice}

    def limit(key: str) -> int:
        runs = guard.runs(by_key[key])
        return allowed if runs is None else runs

    # The first answer may take a moment, and who decides whose turn it is has all others wait.
    for device in choice:
        guard.runs(device)
    turn = Turn(list(by_key), limit, f"{guard.what} of {what}" if guard.what else what)
    try:
        held = turn.take()
        mine = _taken(held, by_key) if held is not None else do(f"wait for {_any_of(choice)}", wait, turn, by_key)
    finally:
        turn.give_up()
    try:
        publish(mine)
        yield mine
    finally:
        try:
            if mine.device.torch != "cpu":
                import torch

                # Of a device that has failed, this fails too.
                with suppress(RuntimeError):
                    torch.cuda.empty_cache()
        finally:
            _held.pop(mine.id).release()
            publish(Freed(mine.device))


def wait(turn: Turn, devices: dict[str, Device]) -> Taken:
    """Wait for a turn at one of `devices`, by their keys, and say who holds them."""
    began = time.monotonic()
    said: tuple[Holder, ...] | None = None
    while True:
        holders = tuple(turn.holders())
        held = turn.take()
        if held is not None:
            mine = _taken(held, devices)
            log.info(f"{mine.device.name} is free, after {time.monotonic() - began:.1f} s")
            return mine
        if holders != said:
            said = holders
            log.info(_told(holders, devices))
            publish(Waiting(tuple(devices.values()), holders))
        time.sleep(LOOK_S)


def _taken(held: Held, devices: dict[str, Device]) -> Taken:
    mine = Taken(uuid.uuid4().hex, devices[held.device])
    _held[mine.id] = held
    return mine


def _any_of(devices: tuple[Device, ...]) -> str:
    names = [device.name for device in devices]
    return " or ".join(names) if len(names) < 4 else f"one of {len(names)} GPUs"


def _told(holders: tuple[Holder, ...], devices: dict[str, Device]) -> str:
    """Who holds what this run waits for."""
    if not holders:
        return f"waiting for {_any_of(tuple(devices.values()))}: others wait for it too, and came before"
    told = []
    for holder in holders:
        since = time.strftime("%H:%M:%S", time.localtime(holder.since))
        told.append(f"{devices[holder.device].name} is held by {holder.what} (process {holder.process}, since {since})")
    return "waiting: " + "; ".join(told)
