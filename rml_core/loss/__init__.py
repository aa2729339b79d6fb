"""The `loss` section: what training makes small."""

from rml_core.loss.pixelwise import BCE, MSE, NLL
from rml_core.loss.region import Dice
from rml_core.loss.section import Fitted, LossSection

LOSSES: dict[str, type[LossSection]] = {
    "NLL": NLL,
    "BCE": BCE,
    "MSE": MSE,
    "Dice": Dice,
}

LATER = (
    "Jaccard",
    "Focal",
    "Lovasz",
    "Wasserstein",
    "YOLOv3",
    "Burgers_PDE",
    "Poisson2D_PDE",
    "Poisson3D_PDE",
)

__all__ = ["LATER", "LOSSES", "Fitted", "LossSection"]
