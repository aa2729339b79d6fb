"""Texts of others within Markdown: names of files, classes and layers, values of run files, what libraries say. They
stand there as they are, and make no table, link, picture or heading of their own."""

from __future__ import annotations

import re

# A `_` within a word has no meaning.
_SPECIAL = re.compile(r"[\\`*\[\]<>|~]|(?<!\w)_|_(?!\w)")
_AT_THE_BEGINNING = re.compile(r"\A(#|[+-](?!\w)|\d+[.)](?=\s|\Z))")


def plain(text: str) -> str:
    """A line of text."""
    escaped = _SPECIAL.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
    return _AT_THE_BEGINNING.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", escaped)


def code(text: object, in_table: bool = False) -> str:
    """A line of text as code, as a path is written."""
    line = " ".join(str(text).split())
    ticks = "`" * (_longest_run(line) + 1)
    edge = " " if line.startswith("`") or line.endswith("`") else ""
    span = f"{ticks}{edge}{line}{edge}{ticks}"
    return span.replace("|", "\\|") if in_table else span


def fenced(text: str, language: str = "") -> str:
    """Lines of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
