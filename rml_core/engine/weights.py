"""Filling a network with what a file has for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from rml_core import checkpoints
from rml_core.checkpoints.match import load_into
from rml_core.checkpoints.stored import Outline
from rml_core.config import remote
from rml_core.config.problem import RunFailed
from rml_core.layers.graph import Graph, Network

if TYPE_CHECKING:
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
            return load_into(module, checkpoints.read(file, WHERE), network.unique, outlines_of(network.graph), WHERE)
    except OSError as error:
        raise RunFailed(f"{path}: cannot be read: {error.strerror or error}") from error


def outlines_of(graph: Graph) -> tuple[Outline, ...]:
    """The graph's entries, and those of the models in it."""
    return tuple(
        Outline(entry.name, entry.class_name, outlines_of(entry.content) if isinstance(entry.content, Graph) else None)
        for entry in graph.entries
    )
