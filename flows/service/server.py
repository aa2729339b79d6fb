"""Prefect's command, as `python -m prefect` is, with transactions on SQLite that wait for their turn: `rml up` starts
the server by it.

Prefect begins most of its transactions as ones that read. Where one of these comes to write while another one writes,
SQLite refuses it at once ("database is locked"; https://www.sqlite.org/rescode.html#busy_snapshot), and under load the
others have been seen to stand still for a minute. Begun as ones that write they come one after the other.
"""

from __future__ import annotations

import runpy
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


@event.listens_for(Engine, "before_cursor_execute", retval=True)
def in_turn(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    """The statement to be executed; PostgreSQL has none that is called so."""
    return "BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement, parameters


if __name__ == "__main__":
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
