"""The `checkpoints` section."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rml_core.config.names import OneOf
from rml_core.config.paths import FolderText, PathText
from rml_core.config.section import Section


class Checkpoints(Section):
    """What is saved while training, and what weights a run begins with."""

    save: FolderText | None = Field(None, examples=["checkpoints"])
    """Folder for `model_checkpoint_<epoch>.pt`; nothing is saved without it."""
    interval: Annotated[int, Field(ge=1)] = 1
    """Save after every so many epochs, and after the last."""
    load: PathText | None = Field(None, examples=["weights.h5"])
    """A file with weights to begin with: a checkpoint, a PyTorch `state_dict`, a libtorch archive, or what Keras saves.
    They go by layer name."""
    resume: Annotated[str, OneOf("value", "auto")] | None = Field(None, examples=["auto"])
    """`auto`: go on from the newest checkpoint of the latest run in `save`, and start anew where there is none. It
    outranks `load`."""
    keep: Annotated[int, Field(ge=1)] | None = Field(None, examples=[3])
    """So many of the run's newest checkpoints stay; all of them without it."""
    best: bool = Field(False, examples=[True])
    """Let `model_checkpoint_best.pt` follow the best evaluation."""
