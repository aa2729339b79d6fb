"""`rml status`: what runs, where, and whether all is well."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from flows.service import api
from flows.service.environment import environment
from flows.service.state import State
from flows.service.supervisor import SERVER, WORKERS, Supervisor

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


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
    os.environ.update(environment(state, options))
    programs = Supervisor(state).programs()
    wanted = [
        SERVER,
        *(pool for pool, count in zip(WORKERS, (options.gpu_runs, options.cpu_runs), strict=True) if count),
    ]
    answers = api.is_healthy(options.api)
    content: dict[str, Any] = {
        "up": bool(programs),
        "url": options.url,
        "state": str(state.folder),
        "programs": {name: _program(programs.get(name)) for name in wanted},
        "answers": answers,
    }
    if answers:
        with api.reached():
            content |= _asked(options.api)
    well = answers and all(content["programs"][name]["state"] == "running" for name in wanted)
    return Status({"well": well, **content}, well)


def _program(found: dict[str, Any] | None) -> dict[str, Any]:
    if found is None:
        return {"state": "not running"}
    if found["statename"] != "RUNNING":
        return {"state": found["statename"].casefold()}
    return {"state": "running", "pid": found["pid"], "seconds": found["now"] - found["start"]}


def _asked(url: str) -> dict[str, Any]:
    pools = api.call(url, "/work_pools/filter", {})
    deployments = api.call(url, "/deployments/filter", {})
    automations = api.call(url, "/automations/filter", {})
    of_deployments = {"deployment_id": {"is_null_": False}, "state": {"type": {"not_any_": list(ENDED)}}}
    runs = api.call(url, "/flow_runs/filter", {"flow_runs": of_deployments, "limit": 200})
    names = {each["id"]: f"rml/{each['name']}" for each in deployments}
    return {
        "pools": [
            {
                "name": each["name"],
                "status": each["status"].casefold(),
                "limit": each["concurrency_limit"],
                "paused": each["is_paused"],
            }
            for each in sorted(pools, key=lambda pool: pool["name"])
        ],
        "deployments": [
            {
                "name": names[each["id"]],
                "pool": each["work_pool_name"],
                "paused": each["paused"],
                "schedules": len(each["schedules"]),
            }
            for each in sorted(deployments, key=lambda deployment: deployment["name"])
        ],
        "automations": [{"name": each["name"], "enabled": each["enabled"]} for each in automations],
        "runs": [
            {
                "name": each["name"],
                "id": each["id"],
                "deployment": names.get(each["deployment_id"]),
                "state": each["state_name"],
            }
            for each in runs
        ],
    }


def as_text(found: Status) -> str:
    """The status for a terminal."""
    content = found.content
    if not content["up"] and not content.get("answers"):
        return f"nothing is up in {content['state']}: `rml up` puts a service up"
    lines = [
        ("all is well" if found.well else "not all is well"),
        f"pages: {content['url']}",
        f"state: {content['state']}",
    ]
    for name, program in content["programs"].items():
        since = f", process {program['pid']}, up {program['seconds']} s" if "pid" in program else ""
        lines.append(f"{'server' if name == SERVER else f'worker {name}'}: {program['state']}{since}")
    if not content["answers"]:
        lines.append(f"the server does not answer; its log: {content['state']}/logs/{SERVER}.log")
        return "\n".join(lines)
    for pool in content["pools"]:
        limit = "no limit" if pool["limit"] is None else f"{pool['limit']} at a time"
        lines.append(
            f"pool {pool['name']}: {'paused' if pool['paused'] else pool['status'].replace('_', ' ')}, {limit}"
        )
    for each in content["deployments"]:
        schedules = f", {each['schedules']} schedule{'s' if each['schedules'] > 1 else ''}" if each["schedules"] else ""
        lines.append(f"deployment {each['name']}: pool {each['pool']}{schedules}{', paused' if each['paused'] else ''}")
    for each in content["automations"]:
        lines.append(f"automation {each['name']}: {'on' if each['enabled'] else 'off'}")
    for each in content["runs"]:
        lines.append(f"run {each['name']} of {each['deployment']}: {each['state']}")
    if not content["runs"]:
        lines.append("no run is in progress or waits")
    return "\n".join(lines)
