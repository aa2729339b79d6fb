"""The output of a run: a line that nobody reads any more does no harm."""

from __future__ import annotations

import io
import os

from flows.service.engine import Outlet


def test_what_is_written_after_the_reader_has_gone_is_lost() -> None:
    reader, writer = os.pipe()
    text = io.TextIOWrapper(io.BufferedWriter(Outlet(writer, "w", closefd=False)), line_buffering=True)
    text.write("first\n")
    assert os.read(reader, 100) == b"first\n"
    os.close(reader)
    for _ in range(100):
        text.write("x" * 1000 + "\n")
    text.close()
    os.close(writer)
