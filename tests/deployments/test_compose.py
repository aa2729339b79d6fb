"""`deployments/compose.yaml`: what Compose makes of it, and whether its programs know what they are told."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
TEXT = (DEPLOYMENTS / "compose.yaml").read_text()
OURS = ("tables", "server-1", "server-2", "services", "register", "worker-cpu", "worker-gpu", "dask-scheduler")


def test_it_is_what_the_compose_specification_says() -> None:
    package = find_spec("check_jsonschema")
    assert package is not None
    folder = Path((package.submodule_search_locations or [])[0])
    schema = json.loads((folder / "builtin_schemas" / "vendor" / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(yaml.safe_load(TEXT))


def test_secrets_come_from_the_environment_and_have_no_default() -> None:
    found = dict(re.findall(r"\$\{(\w+):([-?])", TEXT))
    assert {name for name, how in found.items() if how == "?"} == {"RML_SHARED", "RML_DATABASE_PASSWORD", "RML_AUTH"}
    for line in TEXT.splitlines():
        if re.match(r"\s+\S*(PASSWORD|AUTH_STRING):", line):
            assert re.search(r": \$\{RML_(DATABASE_PASSWORD|AUTH)\b", line), line


def test_ports_are_published_on_loopback_alone(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"proxy": ["127.0.0.1:4200:4200"]}


def test_the_database_is_out_of_the_reach_of_runs(services: dict[str, Any]) -> None:
    runs = {name for name, service in services.items() if "runs" in service["networks"]}
    storage = {name for name, service in services.items() if "storage" in service["networks"]}
    assert {"worker-cpu", "worker-gpu", "dask-scheduler", "dask-worker"} <= runs - storage
    assert {"database", "messages"} <= storage - runs


def test_whoever_runs_users_code_has_the_shared_folder_and_is_not_root(services: dict[str, Any]) -> None:
    for name in ("worker-cpu", "worker-gpu", "dask-scheduler", "dask-worker"):
        assert services[name]["volumes"] == ["/srv/rml:/srv/rml"]
        assert services[name]["user"] == "1000:1000"


@pytest.mark.parametrize("name", OURS)
def test_every_variable_for_prefect_is_one_that_it_knows(name: str, services: dict[str, Any]) -> None:
    from prefect.settings import Settings

    known = {alias.upper() for alias in _names(Settings)}
    # Those of prefect_redis, whose settings are its own.
    known |= {"PREFECT_REDIS_MESSAGING_URL", "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL"}
    given = {key for key in services[name]["environment"] if key.startswith("PREFECT_")}
    assert given - known == set()


def test_the_settings_are_taken(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings

    for key, value in services["server-1"]["environment"].items():
        monkeypatch.setenv(key, value)
    server = Settings().server
    assert server.services.db_vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert server.services.db_vacuum.retention_period.days == 90
    assert server.events.retention_period.days == 7
    assert server.database.host == "database"
    assert not server.database.migrate_on_start


def test_the_image_holds_all_that_is_imported() -> None:
    copied = re.findall(r"^COPY (\w+) \w+$", (DEPLOYMENTS / "Dockerfile").read_text(), re.MULTILINE)
    assert copied == ["rml_core", "tasks", "flows", "deployments"]


def _names(model: Any, prefix: str = "PREFECT_") -> set[str]:
    """The environment variables of a settings model and of those within."""
    found = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if hasattr(kind, "model_fields"):
            found |= _names(kind, f"{prefix}{name}_")
            continue
        found.add(f"{prefix}{name}")
        choices = getattr(field.validation_alias, "choices", ())
        found |= {choice for choice in choices if isinstance(choice, str)}
    return found
