"""The server's HTTP interface, for questions that need not wait until Prefect is imported."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.service.environment import CLIENT_PASSWORD, PASSWORD
from rml_core.config.problem import Problem, Refused, RunFailed

# What Prefect's server says while its database is locked by another request, or while it starts and stops.
BUSY = (429, 502, 503)
PATIENCE = 60.0
# What `call` raises where the server is away, refuses, or ends amid its answer.
FAILURES = (OSError, http.client.HTTPException, ValueError)


def is_healthy(api: str, timeout: float = 5.0) -> bool:
    """Whether a Prefect server answers at this address."""
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=timeout) as answer:
            return bool(json.loads(answer.read()) is True)
    except urllib.error.HTTPError as error:
        # A server behind a password answers, if only to say so.
        return error.code == 401
    except FAILURES:
        return False


@contextmanager
def let_in() -> Iterator[None]:
    """A context in which a server that wants a password is a problem of who has typed the command.

    Raises:
        Refused: it does not take the password, or there is none.
    """
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        given = os.environ.get(CLIENT_PASSWORD) or os.environ.get(PASSWORD)
        what = "the Prefect server wants " + ("another password" if given else "a password")
        raise Refused([Problem("", what, remedy=f"set {CLIENT_PASSWORD}=user:password")]) from None


@contextmanager
def reached() -> Iterator[None]:
    """A context in which what `call` raises is a failure of the command: one line that names the server.

    Raises:
        Refused: it wants a password.
        RunFailed: the server is away or refuses.
    """
    try:
        with let_in():
            yield
    except urllib.error.HTTPError as error:
        raise RunFailed(f"the Prefect server refuses {error.url}: {error}; the reason stands in its log") from None
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
        why = getattr(error, "reason", None) or error or type(error).__name__
        raise RunFailed(f"the Prefect server does not answer: {why}") from None


def call(api: str, path: str, body: Any = None, *, method: str | None = None, timeout: float = 30.0) -> Any:
    """What the server answers; a `body` is sent as JSON. A server that has too much to do is asked again.

    Raises:
        OSError: the server is away or refuses.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}{path}", data=data, method=method)
    request.add_header("Content-Type", "application/json")
    password = os.environ.get(CLIENT_PASSWORD) or os.environ.get(PASSWORD)
    if password:
        request.add_header("Authorization", f"Basic {base64.b64encode(password.encode()).decode()}")
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                text = answer.read()
            return json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            if error.code not in BUSY or time.monotonic() > until:
                raise
        time.sleep(0.3)
