"""What a run's predictions are assembled into, and what the file says of where they are from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from rml_core.assembly.layout import Assembly
from rml_core.check import Checked
from rml_core.checkpoints import native
from rml_core.config import remote
from rml_core.config.paths import resolve
from rml_core.engine.metrics import threshold_of
from rml_core.run import ROOT
from tasks.assemble import begin

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.places import Places
    from flows.plan import Epoch
    from rml_core.engine.rank import Setup
    from tasks.assemble import Assembling


def beginning(
    checked: Checked, places: Places, setup: Setup, scheduler: str | None
) -> Callable[[Epoch], Assembling] | None:
    """What begins to assemble the predictions of an epoch, before they are made; None: nothing is assembled."""
    whole = assembly_of(checked, places, setup)
    return None if whole is None else lambda epoch: begin(of_epoch(whole, epoch, checked, places), setup, scheduler)


def assembly_of(checked: Checked, places: Places, setup: Setup) -> Assembly | None:
    """Of all epochs of a run; None: nothing is assembled."""
    if places.prediction is None or setup.test is None:
        return None
    data, network = checked.run.file.data, checked.network
    layers = checked.run.mapping[ROOT]["layers"]
    about = {
        "layers": layers if isinstance(layers, str) else "in the run file",
        "parameters": network.parameters,
        "output_shape": network.output_shape,
    }
    return Assembly(
        path=places.prediction,
        grids=setup.test.grids,
        channels=network.output_shape[0] or 1,
        blend=data.overlap_blend,
        output=data.hdf5_output,
        precision=data.hdf5_precision,
        threshold=threshold_of(checked.fitted.source if checked.fitted is not None else network.last_activation),
        said=(("run", setup.run_id), ("run_file", setup.run_file), ("network", json.dumps(about))),
        slicers=tuple(json.dumps(each.model_dump(mode="json")) for each in data.slicers),
    )


def of_epoch(whole: Assembly, epoch: Epoch, checked: Checked, places: Places) -> Assembly:
    """What is assembled of `epoch`; the file names the checkpoint that holds the weights, where there is one."""
    section = checked.run.file.checkpoints
    checkpoint = ""
    if places.checkpoints is not None:
        path = native.epoch_path(places.checkpoints, epoch.number)
        checkpoint = remote.text_of(path) if epoch.checkpoint is not None or epoch.train is None else ""
    elif section is not None and section.load is not None and epoch.train is None:
        checkpoint = remote.text_of(resolve(section.load, checked.run.base))
    return replace(whole, said=(*whole.said, ("epoch", str(epoch.number)), ("checkpoint", checkpoint)))
