"""What a run's predictions are assembled into, and what the file says of where they are from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from rml_core.assembly.layout import Assembly, Said, lack_of_room
from rml_core.check import Checked
from rml_core.checkpoints import native
from rml_core.config import remote
from rml_core.config.paths import resolve
from rml_core.config.problem import Problem, Refused
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
    bare = assembly_of(checked, places)
    if bare is None:
        return None
    layers = checked.run.mapping[ROOT]["layers"]
    about = {
        "layers": layers if isinstance(layers, str) else "in the run file",
        "parameters": checked.network.parameters,
        "output_shape": checked.network.output_shape,
    }
    said: Said = (("run", setup.run_id), ("run_file", setup.run_file), ("network", json.dumps(about)))
    if setup.mask_mapping is not None:
        said = (*said, ("classes", setup.mask_mapping))
    whole = replace(bare, said=said)
    return lambda epoch: begin(of_epoch(whole, epoch, checked, places), setup, scheduler)


def refuse_without_room(checked: Checked, places: Places) -> None:
    """Raises `Refused` where the disk has no room for the file, long before it is made."""
    assembly = assembly_of(checked, places)
    lacking = lack_of_room(assembly) if assembly is not None else ""
    if lacking:
        remedy = "make room there, choose another place, or take half precision or classes (hdf5_output)"
        raise Refused([Problem("neural_network.data.hdf5_outfile", lacking, remedy=remedy)])


def assembly_of(checked: Checked, places: Places) -> Assembly | None:
    """Of all epochs of a run, but for what the file says of it; None: nothing is assembled."""
    if places.prediction is None or checked.test is None:
        return None
    data, network = checked.run.file.data, checked.network
    return Assembly(
        path=places.prediction,
        grids=checked.test.grids,
        channels=network.output_shape[0] or 1,
        blend=data.overlap_blend,
        output=data.hdf5_output,
        precision=data.hdf5_precision,
        threshold=threshold_of(checked.fitted.source if checked.fitted is not None else network.last_activation),
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
