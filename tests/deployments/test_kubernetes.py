"""`deployments/kubernetes/`: every object is one that Kubernetes takes, and a run's job is complete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deployments" / "kubernetes"
VERSION = "1.31"


def objects() -> list[tuple[str, dict[str, Any]]]:
    files = ("server.yaml", "workers.yaml")
    found = [(file, each) for file in files for each in yaml.safe_load_all((FOLDER / file).read_text())]
    return [(f"{file}: {each['kind']} {each['metadata']['name']}", each) for file, each in found]


def containers() -> list[dict[str, Any]]:
    dask = yaml.safe_load((FOLDER / "dask.yaml").read_text())["spec"]
    pods = [each["spec"]["template"]["spec"] for _, each in objects() if "template" in each.get("spec", {})]
    pods += [dask["scheduler"]["spec"], dask["worker"]["spec"]]
    return [container for pod in pods for container in pod["containers"]]


@pytest.mark.parametrize("described", objects(), ids=lambda described: described[0])
def test_objects_are_what_kubernetes_takes(described: tuple[str, dict[str, Any]]) -> None:
    kubernetes_validate.validate(described[1], VERSION, strict=True)


def test_the_pods_of_the_dask_cluster_are_too() -> None:
    spec = yaml.safe_load((FOLDER / "dask.yaml").read_text())["spec"]
    for part in ("scheduler", "worker"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}, "spec": spec[part]["spec"]}
        kubernetes_validate.validate(pod, VERSION, strict=True)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec["scheduler"]["service"]}
    kubernetes_validate.validate(service, VERSION, strict=True)


@pytest.mark.parametrize(("pool", "gpus"), [("cpu", 0), ("gpu", 1)])
def test_the_job_of_a_run_is_what_kubernetes_takes(pool: str, gpus: int) -> None:
    template = json.loads((FOLDER / f"pool-{pool}.json").read_text())
    values = {name: each["default"] for name, each in template["variables"]["properties"].items() if "default" in each}
    # What the worker itself gives.
    values |= {
        "name": "green-fox",
        "env": [{"name": "PREFECT__FLOW_RUN_ID", "value": "0"}],
        "labels": {"prefect.io/flow-run-name": "green-fox"},
        "annotations": {},
        "command": ["python", "-m", "prefect.engine"],
    }
    job = put_in(template["job_configuration"]["job_manifest"], values)
    kubernetes_validate.validate(job, VERSION, strict=True)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
    # Kubernetes waits as long for a checkpoint as Prefect does.
    assert job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60
    assert container["volumeMounts"][0] == {"name": "shared", "mountPath": "/srv/rml"}


def test_what_is_named_is_there_or_said_to_be_made() -> None:
    made = {(each["kind"], each["metadata"]["name"]) for _, each in objects()}
    # docs/cluster.md makes these two: they hold passwords.
    made |= {("Secret", "rml-auth"), ("Secret", "rml-database")}
    page = (FOLDER.parents[1] / "docs" / "cluster.md").read_text()
    assert all(f"create secret generic {name}" in page for name in ("rml-auth", "rml-database"))
    for container in containers():
        for source in container.get("envFrom", []):
            kind = {"configMapRef": "ConfigMap", "secretRef": "Secret"}[next(iter(source))]
            assert (kind, next(iter(source.values()))["name"]) in made


def test_servers_and_compose_are_set_alike() -> None:
    config = next(each for text, each in objects() if "ConfigMap rml-server" in text)["data"]
    compose = yaml.safe_load((FOLDER.parent / "compose.yaml").read_text())["x-server-environment"]
    assert config.keys() <= compose.keys()
    elsewhere = ("URL", "RETENTION_PERIOD")
    same = {key for key in config if not key.endswith(elsewhere)}
    assert {key: config[key] for key in same} == {key: compose[key] for key in same}


def put_in(value: Any, values: dict[str, Any]) -> Any:
    """`value` with its placeholders filled, as a worker does it."""
    if isinstance(value, dict):
        return {key: put_in(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [put_in(each, values) for each in value]
    if isinstance(value, str) and value.startswith("{{ ") and value.endswith(" }}"):
        return values[value.strip("{} ")]
    return value.replace("{{ name }}", str(values["name"])) if isinstance(value, str) else value
