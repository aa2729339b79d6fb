"""Filling a network with what a file has for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rml_core import checkpoints
from rml_core.checkpoints.match import check_names, load_into
from rml_core.checkpoints.stored import Outline
from rml_core.checkpoints.table import names
from rml_core.config import remote
from rml_core.config.problem import Problem, RunFailed
from rml_core.layers.graph import Graph, Network

if TYPE_CHECKING:
    from torch import nn

    from rml_core.config.paths import AnyPath

WHERE = "neural_network.checkpoints.load"


def load(path: AnyPath, module: nn.Module, network: Network) -> list[str]:
    """Fill `module`, which was built from `network`, with the weights in the file `path`; what is to be said of that.

    Raises:
        Refused: it is no file with weights, or none of them fits.
        RunFailed: it cannot be fetched.
    """
    try:
        with remote.fetched(path) as file:
            stored = checkpoints.read(file, WHERE)
            return load_into(module, stored, network.unique, outlines_of(network.graph), WHERE, str(path))
    except OSError as error:
        raise RunFailed(f"{path}: cannot be read: {error.strerror or error}") from error


def problem_of(path: Path, network: Network) -> Problem | None:
    """Why the file `path` cannot be for `network`, where the names in it say so already; only they are read.

    Raises `Refused` where it is no file with weights.
    """
    stored = names(path, WHERE)
    if stored is None:
        return None
    return check_names(stored, network.unique, outlines_of(network.graph), WHERE, str(path))


def outlines_of(graph: Graph) -> tuple[Outline, ...]:
    """The graph's entries, and those of the models in it."""
    return tuple(
        Outline(entry.name, entry.class_name, outlines_of(entry.content) if isinstance(entry.content, Graph) else None)
        for entry in graph.entries
    )
