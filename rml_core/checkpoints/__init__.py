"""The `checkpoints` section: what a run leaves to go on from, and what weights it begins with."""

from rml_core.checkpoints.section import Checkpoints
from rml_core.checkpoints.table import FORMATS, read

__all__ = ["FORMATS", "Checkpoints", "read"]
