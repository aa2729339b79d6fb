"""Build the network, its optimizer and its random state in every rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks import ranks
from tasks.progress import log

if TYPE_CHECKING:
    from rml_core.engine.rank import Setup
    from tasks.devices import Taken
    from tasks.slice import SliceSet


def build(setup: Setup, device: Taken | None, *slice_sets: SliceSet) -> ranks.Stage:
    """The ranks, at the state of `setup.resume`, or new with the weights of `setup.weights`.

    `device`: held for them, None: the CPU. `slice_sets`: what the samples are cut in, known to be there.
    """
    handle = ranks.start(setup)
    for line in ranks.said(handle):
        log.info(line)
    return ranks.Stage(handle)
