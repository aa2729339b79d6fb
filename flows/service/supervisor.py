"""The supervisor of a service: supervisord with a configuration of our own, spoken to through its socket.

It keeps the server and the workers alive. The environment is handed down, never written: it may hold passwords.
"""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import subprocess
import sys
import time
import xmlrpc.client
from pathlib import Path
from typing import Any

from flows.service import processes
from flows.service.state import Options, State, written
from rml_core.config.problem import RunFailed

SERVER = "server"
WORKERS = ("gpu", "cpu")
PATIENCE = 60.0
# Seconds that the supervisor may take for an answer.
ANSWER = 30.0

# A worker has this long to tell its runs, and they to save what they have, before it is killed.
STOP_SECONDS = 90

HEAD = """\
; Written by `rml up`: changes are lost.
[unix_http_server]
file={socket}
chmod=0700

[supervisord]
pidfile={pid}
logfile={logs}/supervisord.log
logfile_maxbytes=5MB
logfile_backups=2
childlogdir={logs}
directory={folder}
{user}umask=077

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

PROGRAM = """
[program:{name}]
command={command}
directory={folder}
priority={priority}
autostart=false
autorestart=true
startsecs=2
startretries=1000000
stopsignal=TERM
stopwaitsecs={stop}
redirect_stderr=true
stdout_logfile={logs}/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
"""


def configuration(state: State, options: Options) -> str:
    """What supervisord reads. Programs stop in the order workers, server: a run that is told can still report."""
    places = {key: _literal(str(getattr(state, key))) for key in ("folder", "logs", "pid", "socket")}
    user = "user=root\n" if os.getuid() == 0 else ""
    text = HEAD.format(user=user, **places)
    serve = ["-m", "flows.service.server", "server", "start", "--host", options.host, "--port", str(options.port)]
    text += _program(SERVER, serve, priority=1, stop=20, **places)
    for pool in WORKERS:
        text += _program(pool, ["-m", "flows.service.worker", pool], priority=2, stop=STOP_SECONDS, **places)
    return text


def _program(name: str, arguments: list[str], **values: Any) -> str:
    command = _literal(shlex.join([sys.executable, *arguments]))
    return PROGRAM.format(name=name, command=command, **values)


def _literal(text: str) -> str:
    return text.replace("%", "%%")


class Supervisor:
    """The supervisor of one state folder."""

    def __init__(self, state: State) -> None:
        self.state = state

    def _call(self, method: str, *arguments: Any) -> Any:
        with xmlrpc.client.ServerProxy("http://127.0.0.1", _Transport(self.state.socket)) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def is_up(self) -> bool:
        """Whether it answers."""
        if not self.state.socket.exists():
            return False
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except (OSError, xmlrpc.client.Error):
            return False

    def programs(self) -> dict[str, dict[str, Any]]:
        """Of each program its state, process id and seconds; nothing where no supervisor answers."""
        try:
            return {each["name"]: each for each in self._call("getAllProcessInfo")}
        except (OSError, xmlrpc.client.Error):
            return {}

    def begin(self, environment: dict[str, str]) -> None:
        """Start supervisord in the background, with nothing running below it.

        Raises:
            RunFailed: it does not start.
        """
        # Warnings of Python about supervisor's own use of other packages are none of the user's, and what lies in the
        # working directory is no code of ours.
        command = [sys.executable, "-P", "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(self.state.config)]
        began = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        until = time.monotonic() + PATIENCE
        while began.returncode == 0 and time.monotonic() < until:
            if self.is_up():
                return
            time.sleep(0.05)
        said = " ".join(began.stderr.split()) or "it does not answer"
        raise RunFailed(f"supervisord does not start: {said} (its log: {self.state.logs / 'supervisord.log'})")

    def start(self, program: str) -> None:
        # What is being stopped, as a command that was interrupted has left it, is not started meanwhile.
        self._wait_while(program, ("STOPPING",))
        try:
            self._call("startProcess", program, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise RunFailed(f"{program} does not start: {fault.faultString}") from None

    def stop(self, *names: str) -> None:
        """Stop programs side by side, and wait until they have ended."""
        for name in names:
            try:
                self._call("stopProcess", name, False)
            except xmlrpc.client.Fault as fault:
                if "NOT_RUNNING" not in fault.faultString:
                    raise RunFailed(f"{name} does not stop: {fault.faultString}") from None
        for name in names:
            self._wait_while(name, ("STOPPING", "RUNNING", "STARTING"))

    def _wait_while(self, name: str, states: tuple[str, ...]) -> None:
        until = time.monotonic() + STOP_SECONDS + 10
        while self.programs().get(name, {}).get("statename") in states and time.monotonic() < until:
            time.sleep(0.1)

    def end(self) -> None:
        """Stop what is left, and the supervisor itself."""
        pid = processes.number_in(self.state.pid)
        try:
            self._call("shutdown")
        except (OSError, xmlrpc.client.Error):
            return
        until = time.monotonic() + STOP_SECONDS + 30
        while pid is not None and processes.is_alive(pid) and time.monotonic() < until:
            time.sleep(0.1)

    def write(self, options: Options) -> None:
        written(self.state.config, configuration(self.state, options))


class _Transport(xmlrpc.client.Transport):
    """Through the supervisor's socket. One that stands still is given up."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=ANSWER)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(ANSWER)
        connection.sock.connect(str(self._path))
        return connection


def log_end(path: Path, lines: int = 5, after: int = 0) -> str:
    """The last lines of a log, with something in them. `after`: its length when what it says began to matter; a log
    that is shorter has been begun anew since."""
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    text = content[after if after <= len(content) else 0 :].decode(errors="replace")[-20_000:]
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
