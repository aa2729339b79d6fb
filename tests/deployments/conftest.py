"""`deployments/compose.yaml` rehearsed without containers: every service is a process in a network, a mount and a
process namespace of its own, with the command, the environment, the names and the shared folder that the file says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE = Path(__file__).parents[2] / "deployments" / "compose.yaml"
BIN = Path(sys.executable).parent
SHARED = "/srv/rml"
SUBNET = "10.211.0"
VARIABLES = {"RML_SHARED": SHARED, "RML_DATABASE_PASSWORD": "p@ss/word", "RML_AUTH": "rml:s3cret"}
# `exec "$@"` in the folders of a machine: /srv is its own, with what all share in it; /tmp stays that of the tests.
MACHINE = """
mount --bind "$HOSTS" /etc/hosts
mount -t tmpfs none /srv && mkdir /srv/rml && mount --bind "$FOLDER" /srv/rml
cd /srv/rml
exec "$@"
"""
# What the image of PostgreSQL does at its first start.
DATABASE = """
chmod 777 /srv
mount -t tmpfs none /var/lib/postgresql && chown postgres /var/lib/postgresql
as="setpriv --reuid postgres --regid postgres --clear-groups"
printf %s "$POSTGRES_PASSWORD" > /srv/password && chmod 644 /srv/password
export PGDATA=/var/lib/postgresql/data
$as "$PG/initdb" -U "$POSTGRES_USER" -A scram-sha-256 --pwfile=/srv/password --no-sync >/dev/null
echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
$as "$PG/postgres" --single postgres <<< "CREATE DATABASE $POSTGRES_DB" >/dev/null
# Not in the place of the shell: who changes the user is not ended with `unshare` any more.
$as "$PG/postgres" -c listen_addresses='*' -c unix_socket_directories=/srv -c fsync=off &
wait
"""


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """`value` with `${NAME}`, `${NAME:-default}` and `${NAME:?why}` put in, as Compose does it."""
    if isinstance(value, dict):
        return {key: interpolated(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each, variables) for each in value]
    if not isinstance(value, str):
        return value

    def put_in(found: re.Match[str]) -> str:
        name, how, word = found.groups()
        if variables.get(name):
            return variables[name]
        assert how != ":?", f"{name} is not set: {word}"
        return word or ""

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", put_in, value)


@dataclass
class Machines:
    """The machines of a compose file, each in namespaces of its own, on one bridge that nothing else reaches."""

    services: dict[str, Any]
    folder: Path
    logs: Path
    prefix: str = field(default_factory=lambda: f"rml{os.getpid()}")
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.addresses = {name: f"{SUBNET}.{count}" for count, name in enumerate([*self.services, "host"], start=2)}
        _ip(f"netns add {self.prefix}")
        self._inside("", "link add bridge type bridge")
        self._inside("", "link set bridge up")
        for count, (name, address) in enumerate(self.addresses.items()):
            _ip(f"netns add {self.prefix}-{name}")
            self._inside("", f"link add port{count} type veth peer name eth0 netns {self.prefix}-{name}")
            self._inside("", f"link set port{count} master bridge up")
            for words in ("link set lo up", "link set eth0 up", f"addr add {address}/24 dev eth0"):
                self._inside(f"-{name}", words)

    def _inside(self, name: str, words: str) -> None:
        _ip(f"-n {self.prefix}{name} {words}")

    def command(self, name: str, command: list[str]) -> tuple[list[str], dict[str, str]]:
        """How `command` is run on the machine `name`, and in which environment."""
        hosts = self.logs / f"{name}.hosts"
        known = self.addresses | {alias: self.addresses[to] for alias, to in self.aliases.get(name, {}).items()}
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{ip} {host}\n" for host, ip in known.items()))
        service = self.services.get(name, self.services["worker-cpu"])
        environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "HOSTS": str(hosts),
            "FOLDER": str(self.folder),
            **{key: os.environ[key] for key in ("PYTHONPATH", "LD_LIBRARY_PATH") if key in os.environ},
            **service.get("environment", {}),
        }
        for key in ("HOME", "PREFECT_HOME"):
            if key in environment:
                environment[key] = str(self.logs / name)
        alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        inside = ["ip", "netns", "exec", f"{self.prefix}-{name}", *alone, "bash", "-ec", MACHINE, "machine"]
        return [*inside, *command], environment

    def start(self, name: str, command: list[str] | None = None) -> None:
        command = command if command is not None else self.services[name]["command"]
        arguments, environment = self.command(name, command)
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                arguments, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def run(self, name: str, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """`command` on the machine `name`, until it has ended."""
        arguments, environment = self.command(name, list(command))
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=timeout)

    def wait_for(self, name: str, *commands: list[str], seconds: float = 90) -> None:
        """Until the service is healthy by its own health check, or by `commands`."""
        given = self.services[name].get("healthcheck", {}).get("test", ["CMD", "true"])
        until = time.monotonic() + seconds
        while self.run(name, *given[1:]).returncode != 0:
            ended = self.running[name].poll() is not None
            if ended or time.monotonic() > until:
                pytest.fail(f"{name} {'has ended' if ended else 'is not healthy'}:\n{self.log(name)}")
            time.sleep(0.2)

    def finish(self, name: str, seconds: float = 120) -> None:
        """Until a service that runs once has ended, well."""
        assert self.running[name].wait(timeout=seconds) == 0, self.log(name)

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait()
        for name in self.addresses:
            listed = subprocess.run(["ip", "netns", "pids", f"{self.prefix}-{name}"], capture_output=True, text=True)
            for pid in listed.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for name in [*(f"-{name}" for name in self.addresses), ""]:
            subprocess.run(["ip", "netns", "del", f"{self.prefix}{name}"], check=False)


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


@pytest.fixture(scope="session")
def services() -> dict[str, Any]:
    """The services of the compose file, its variables put in."""
    found: dict[str, Any] = interpolated(yaml.safe_load(COMPOSE.read_text()), VARIABLES)["services"]
    return found


@pytest.fixture(scope="session")
def machines(services: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """PostgreSQL, Redis, two servers, the services, a Dask cluster and a worker: `docker compose up`, by hand.

    The proxy, the one program that is neither ours nor in Debian's smallest packages, is a name for one of the servers:
    the second one for the services, the first one for everybody else.
    """
    assert os.getuid() == 0, "network namespaces are root's to make"
    folder, logs = tmp_path_factory.mktemp("shared"), tmp_path_factory.mktemp("logs")
    made = Machines(services, folder, logs)
    made.aliases = {name: {"proxy": "server-2" if name == "services" else "server-1"} for name in made.addresses}
    programs = str(sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1])
    services["database"]["environment"]["PG"] = programs
    check = services["database"]["healthcheck"]["test"]
    services["database"]["healthcheck"]["test"] = [check[0], f"{programs}/{check[1]}", *check[2:], "--host=database"]
    try:
        made.start("database", ["bash", "-ec", DATABASE])
        # What the image of Redis says in its own configuration.
        image = ["--dir", "/srv", "--bind", "0.0.0.0", "--protected-mode", "no"]
        made.start("messages", [*services["messages"]["command"], *image])
        made.start("dask-scheduler")
        made.start("dask-worker")
        made.wait_for("database")
        made.start("tables")
        made.finish("tables")
        made.wait_for("messages")
        made.start("server-1")
        made.wait_for("server-1")
        made.start("server-2")
        made.start("services")
        made.wait_for("server-2")
        made.start("register")
        made.finish("register")
        made.start("worker-cpu")
        yield made
    finally:
        made.stop()
