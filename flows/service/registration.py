"""What a server is told by `rml up`: the pools with their limits, the deployments, the automations.

All of it may be there already: what a user has set since (schedules, a paused pool, a limit of a deployment) stays.
"""

from __future__ import annotations

import importlib
import inspect
import os
import urllib.error
from importlib import resources
from typing import Any

from flows.service import api, limits, notify
from flows.service.state import Options

POOLS = {
    "gpu": "Runs on machines with GPUs.",
    "cpu": "Runs on machines without a GPU.",
}


def pools(options: Options) -> None:
    """Make the work pools, or set their limits anew."""
    for name, limit in limits.of_pools(options).items():
        body = {"concurrency_limit": limit}
        if not _is_there(options.api, f"/work_pools/{name}"):
            new = {"name": name, "type": "process", "description": POOLS[name], "base_job_template": _template()}
            api.call(options.api, "/work_pools/", {**new, **body})
        else:
            api.call(options.api, f"/work_pools/{name}", body, method="PATCH")


def devices(options: Options) -> None:
    """Make the limit of each GPU of this machine; one that is there stays as it is, unless the variable sets it."""
    for name, limit in limits.of_devices().items():
        if not _is_there(options.api, f"/v2/concurrency_limits/{name}"):
            api.call(options.api, "/v2/concurrency_limits/", {"name": name, "limit": limit, "active": True})
        elif "RML_GPU_RUNS" in os.environ:
            api.call(options.api, f"/v2/concurrency_limits/{name}", {"limit": limit}, method="PATCH")


def deployments(options: Options) -> list[str]:
    """Register the deployments of `deployments/prefect.yaml`; without a GPU they run on the pool `cpu`.

    Returns:
        A line for each that is left out, because its flow cannot be imported.
    """
    left_out = []
    for entry in listed():
        try:
            flow = _flow(entry["entrypoint"])
        except (ImportError, AttributeError) as error:
            left_out.append(f"warning: rml/{entry['name']} is left out: {type(error).__name__}: {error}")
            continue
        body = {
            "entrypoint": entry["entrypoint"],
            "description": inspect.cleandoc(entry["description"]),
            "tags": entry["tags"],
            "work_pool_name": _pool(entry["work_pool"]["name"], options),
            "enforce_parameter_schema": entry["enforce_parameter_schema"],
            "parameter_openapi_schema": _schema(flow),
            "pull_steps": [],
            "path": None,
        }
        name = f"/deployments/name/{flow.name}/{entry['name']}"
        if _is_there(options.api, name):
            found = api.call(options.api, name)
            api.call(options.api, f"/deployments/{found['id']}", body, method="PATCH")
            continue
        made = api.call(options.api, "/flows/", {"name": flow.name})
        body |= {"name": entry["name"], "flow_id": made["id"]}
        if entry.get("schedules"):
            body["schedules"] = [_schedule(**each) for each in entry["schedules"]]
        limit = entry.get("concurrency_limit")
        if limit is not None:
            body["concurrency_limit"] = limit["limit"]
            body["concurrency_options"] = {"collision_strategy": limit["collision_strategy"]}
        api.call(options.api, "/deployments/", body)
    return left_out


def _pool(name: str, options: Options) -> str:
    """The pool of a deployment, or the other one where nobody here takes runs from it."""
    taken = {"gpu": options.gpu_runs, "cpu": options.cpu_runs}
    return name if taken[name] else next(other for other in taken if other != name)


def automations(options: Options) -> None:
    """Register the tables of automations; one of the same name is replaced. Without a webhook nobody is told."""
    from flows.service.automations import AUTOMATIONS, NOTIFICATIONS

    found = {each["name"]: each for each in api.call(options.api, "/automations/filter", {})}
    made = [make() for make in AUTOMATIONS]
    webhook = notify.block_id(options.api)
    if webhook is not None:
        made += [make(webhook) for make in NOTIFICATIONS]
    else:
        for name, was in found.items():
            if name.startswith(notify.TELLS):
                api.call(options.api, f"/automations/{was['id']}", method="DELETE")
    for each in made:
        body = each.model_dump(mode="json", exclude_unset=True)
        if body["name"] in found:
            was = found[body["name"]]
            body["enabled"] = was["enabled"]
            # One that is put again forgets what it has seen until then.
            if not _says(was, body):
                api.call(options.api, f"/automations/{was['id']}", body, method="PUT")
        else:
            api.call(options.api, "/automations/", body)


def _says(found: Any, body: Any) -> bool:
    """Whether all of `body` stands in `found`; events and the like are sets."""
    if isinstance(body, dict):
        return isinstance(found, dict) and all(key in found and _says(found[key], body[key]) for key in body)
    if isinstance(body, list) and isinstance(found, list):
        if all(isinstance(each, str) for each in [*body, *found]):
            return sorted(body) == sorted(found)
        return len(body) == len(found) and all(map(_says, found, body))
    return bool(found == body)


def listed() -> list[dict[str, Any]]:
    """The entries of `deployments/prefect.yaml`."""
    import yaml  # type: ignore[import-untyped]

    text = (resources.files("deployments") / "prefect.yaml").read_text()
    entries: list[dict[str, Any]] = yaml.safe_load(text)["deployments"]
    return entries


def _schedule(slug: str, active: bool, **when: str) -> dict[str, Any]:
    """As the server takes it, of what stands in the file as `prefect deploy` takes it."""
    return {"slug": slug, "active": active, "schedule": when, "max_scheduled_runs": 1}


def _flow(entrypoint: str) -> Any:
    module, _, name = entrypoint.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _schema(flow: Any) -> dict[str, Any]:
    schema: dict[str, Any] = flow.parameters.model_dump_for_openapi()
    return schema


def _template() -> dict[str, Any]:
    from prefect.workers.process import ProcessWorker

    return ProcessWorker.get_default_base_job_template()


def _is_there(url: str, path: str) -> bool:
    try:
        api.call(url, path)
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return False
        raise
    return True
