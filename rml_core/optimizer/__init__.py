"""The `optimizer` section: how gradients become new weights."""

from rml_core.optimizer.lamb import LAMB
from rml_core.optimizer.lars import LARS
from rml_core.optimizer.section import OptimizerSection
from rml_core.optimizer.torch_native import SGD, Adagrad, Adam, AdamW, RMSprop

OPTIMIZERS: dict[str, type[OptimizerSection]] = {
    "SGD": SGD,
    "Adagrad": Adagrad,
    "Adam": Adam,
    "AdamW": AdamW,
    "RMSprop": RMSprop,
    "LARS": LARS,
    "LAMB": LAMB,
}

LATER = ("Hessian",)

__all__ = ["LATER", "OPTIMIZERS", "OptimizerSection"]
