"""The `loss` section: what training makes small."""

from rml_core.loss.focal import Focal
from rml_core.loss.lovasz import Lovasz
from rml_core.loss.pixelwise import BCE, MSE, NLL
from rml_core.loss.region import Dice, Jaccard
from rml_core.loss.section import Fitted, LossSection

LOSSES: dict[str, type[LossSection]] = {
    "NLL": NLL,
    "BCE": BCE,
    "MSE": MSE,
    "Dice": Dice,
    "Jaccard": Jaccard,
    "Focal": Focal,
    "Lovasz": Lovasz,
}

LATER = (
    "Wasserstein",
    "YOLOv3",
    "Burgers_PDE",
    "Poisson2D_PDE",
    "Poisson3D_PDE",
)

__all__ = ["LATER", "LOSSES", "Fitted", "LossSection"]
