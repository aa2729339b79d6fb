"""Transactions on SQLite that the server begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from flows.service.server import in_turn


def test_a_transaction_that_is_begun_waits_for_its_turn(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'db'}", connect_args={"timeout": 0, "isolation_level": None})
    sa.event.listen(engine, "before_cursor_execute", in_turn, retval=True)
    with engine.connect() as one, engine.connect() as other:
        one.exec_driver_sql("BEGIN DEFERRED")
        with pytest.raises(sa.exc.OperationalError, match="database is locked"):
            other.exec_driver_sql("BEGIN DEFERRED")
        other.exec_driver_sql("SELECT 1")
