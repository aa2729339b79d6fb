"""`rml status`: what runs, where, and whether all is well."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.service import api, processes, profile
from flows.service.environment import environment
from flows.service.limits import gpus
from flows.service.state import Options, State
from flows.service.supervisor import SERVER, WORKERS, Supervisor

BEGUN = ["PENDING", "RUNNING", "CANCELLING", "PAUSED"]


@dataclass(frozen=True)
class Status:
    """`well`: the service is up, and all that belongs to it runs."""

    content: dict[str, Any]
    well: bool


def status(state: State) -> Status:
    """Look at a service; nothing is changed, and Prefect is not imported."""
    options = state.options()
    if options is None:
        return Status({"well": False, "state": str(state.folder), "up": False}, False)
    clients = _clients(options, os.environ)
    os.environ.update(environment(state, options))
    programs = Supervisor(state).programs()
    wanted = [
        SERVER,
        *(pool for pool, count in zip(WORKERS, (options.gpu_runs, options.cpu_runs), strict=True) if count),
    ]
    answers = api.is_healthy(options.api) and processes.listens(state, options.port)
    content: dict[str, Any] = {
        "up": bool(programs),
        "url": options.url,
        "state": str(state.folder),
        "programs": {name: _program(programs.get(name)) for name in wanted},
        "answers": answers,
        "clients": clients,
    }
    if answers:
        with api.reached():
            content |= _asked(options)
    well = answers and all(content["programs"][name]["state"] == "running" for name in wanted)
    return Status({"well": well, **content}, well)


def _program(found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        return {"state": "not running"}
    if found["statename"] != "RUNNING":
        return {"state": found["statename"].casefold()}
    return {"state": "running", "pid": found["pid"], "seconds": found["now"] - found["start"]}


def _asked(options: Options) -> dict[str, Any]:
    url = options.api
    pools = api.call(url, "/work_pools/filter", {})
    deployments = sorted(api.call(url, "/deployments/filter", {}), key=lambda deployment: str(deployment["name"]))
    automations = api.call(url, "/automations/filter", {})
    names = {each["id"]: f"rml/{each['name']}" for each in deployments}
    now = datetime.now(UTC)
    return {
        "pools": [
            {
                "name": each["name"],
                "status": each["status"].casefold(),
                "limit": each["concurrency_limit"],
                "paused": each["is_paused"],
                "unused": _unused(each, options),
            }
            for each in sorted(pools, key=lambda pool: str(pool["name"]))
        ],
        "deployments": [
            {
                "name": names[each["id"]],
                "pool": each["work_pool_name"],
                "paused": each["paused"],
                "schedules": len(each["schedules"]),
                "next": _next(url, each, now) if each["schedules"] else None,
            }
            for each in deployments
        ],
        "automations": [{"name": each["name"], "enabled": each["enabled"]} for each in automations],
        "runs": [_run(each, options, names) for each in _due(url, now)],
        "ended_badly": _ended_badly(options, names, now),
    }


def _unused(pool: dict[str, Any], options: Options) -> str | None:
    """Why nobody takes runs from a pool; None: somebody does, or should."""
    taken = {"gpu": options.gpu_runs, "cpu": options.cpu_runs}.get(pool["name"])
    if taken != 0 or pool["status"].casefold() == "ready":
        return None
    return "no GPU here: not used" if pool["name"] == "gpu" and not gpus() else "not used here"


def _filter(state: list[str], **more: Any) -> dict[str, Any]:
    return {"flow_runs": {"deployment_id": {"is_null_": False}, "state": {"type": {"any_": state}}, **more}}


def _due(url: str, now: datetime) -> list[dict[str, Any]]:
    """The runs in progress, and those whose time has come: what is scheduled for later is none of them."""
    begun = api.call(url, "/flow_runs/filter", {**_filter(BEGUN), "limit": 200})
    due = {"expected_start_time": {"before_": now.isoformat()}}
    body = {**_filter(["SCHEDULED"], **due), "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
    return [*begun, *api.call(url, "/flow_runs/filter", body)]


def _next(url: str, deployment: dict[str, Any], now: datetime) -> str | None:
    """When a schedule fires next."""
    its = {"deployment_id": {"any_": [deployment["id"]]}, "expected_start_time": {"after_": now.isoformat()}}
    body = {**_filter(["SCHEDULED"], **its), "sort": "EXPECTED_START_TIME_ASC", "limit": 1}
    found = api.call(url, "/flow_runs/filter", body)
    return str(found[0]["expected_start_time"]) if found else None


def _ended_badly(options: Options, names: dict[str, str], now: datetime) -> dict[str, Any]:
    """How many runs have failed, or crashed for good, within a day, and the last of them."""
    since = {"end_time": {"after_": (now - timedelta(days=1)).isoformat()}}
    body = _filter(["FAILED", "CRASHED"], **since)
    count = api.call(options.api, "/flow_runs/count", body)
    found = api.call(options.api, "/flow_runs/filter", {**body, "sort": "END_TIME_DESC", "limit": 1}) if count else []
    return {"count": count, "newest": _run(found[0], options, names) if found else None}


def _run(found: dict[str, Any], options: Options, names: dict[str, str]) -> dict[str, Any]:
    return {
        "name": found["name"],
        "id": found["id"],
        "deployment": names.get(found["deployment_id"]),
        "state": found["state_name"],
        "url": f"{options.url}/runs/flow-run/{found['id']}",
    }


def as_text(found: Status) -> str:
    """The status for a terminal: first what is not well."""
    content = found.content
    if not content["up"] and not content.get("answers"):
        return f"nothing is up in {content['state']}: `rml up` puts a service up"
    lines = ["all is well" if found.well else "not all is well", *_not_well(content)]
    lines += [f"pages: {content['url']}", f"state: {content['state']}"]
    for name, program in content["programs"].items():
        if "pid" in program:
            lines.append(f"{_called(name)}: running, process {program['pid']}, up {program['seconds']} s")
    if not content["answers"]:
        return "\n".join(lines)
    for pool in content["pools"]:
        limit = "no limit" if pool["limit"] is None else f"{pool['limit']} at a time"
        state = "paused" if pool["paused"] else pool["status"].replace("_", " ")
        lines.append(f"pool {pool['name']}: {pool['unused'] or f'{state}, {limit}'}")
    for each in content["deployments"]:
        schedules = f", {each['schedules']} schedule{'s' if each['schedules'] > 1 else ''}" if each["schedules"] else ""
        at = f", next at {each['next'][:19].replace('T', ' ')} UTC" if each["next"] else ""
        lines.append(
            f"deployment {each['name']}: pool {each['pool']}{schedules}{at}{', paused' if each['paused'] else ''}"
        )
    lines += [f"automation {each['name']}: on" for each in content["automations"] if each["enabled"]]
    lines += [f"run {each['name']} of {each['deployment']}: {_said(each)}" for each in content["runs"]]
    if not content["runs"]:
        lines.append("no run is in progress or waits")
    return "\n".join(lines)


def _not_well(content: dict[str, Any]) -> list[str]:
    lines = [
        f"{_called(name)}: {program['state']}; its log: {content['state']}/logs/{name}.log"
        for name, program in content["programs"].items()
        if "pid" not in program
    ]
    if not content["answers"]:
        lines.append(f"the server does not answer; its log: {content['state']}/logs/{SERVER}.log")
    if content["clients"] is not None:
        lines.append(content["clients"])
    if content["answers"]:
        lines += [f"automation {each['name']}: off" for each in content["automations"] if not each["enabled"]]
        badly = content["ended_badly"]
        if badly["newest"] is not None:
            runs = f"{badly['count']} run{'s' if badly['count'] > 1 else ''}"
            newest = badly["newest"]
            of = f"{newest['name']} of {newest['deployment']}: {_said(newest)}"
            lines.append(f"{runs} failed or crashed in the last 24 hours; the newest is {of}")
    return lines


def _called(program: str) -> str:
    return "server" if program == SERVER else f"worker {program}"


def _said(run: dict[str, Any]) -> str:
    return f"{run['state']}, {run['id']}, {run['url']}"


def _clients(options: Options, given: Mapping[str, str]) -> str | None:
    """What to type where this shell's `prefect` and `rml submit` ask another server; None: they find this one."""
    asked = profile.server_of(given)
    if asked is not None and asked.rstrip("/").replace("//localhost:", "//127.0.0.1:") == options.api:
        return None
    other = "no server" if asked is None else f"another server ({asked})"
    typed = " ".join(f"{name}={value}" for name, value in profile.settings(options).items())
    return f"`prefect` and `rml submit` find {other} from this shell; for this one: export {typed}"
