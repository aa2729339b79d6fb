"""The commands of the service: put it up, submit run files to it, see what runs, take it down, clean behind it."""

from __future__ import annotations

import typer

commands = typer.Typer()
