"""The optimizers that torch.optim has; the update rules are torch's own, in one fused kernel where there is one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from rml_core.config.names import OneOf, wrong
from rml_core.optimizer.making import trainable, uncompiled
from rml_core.optimizer.section import OptimizerSection

if TYPE_CHECKING:
    import torch

NotNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Momentum(OptimizerSection):
    """The keys of SGD, and of what is made of it."""

    momentum: NotNegative = Field(0.0, examples=[0.9])
    """The weight of the old velocity."""
    weight_decay: NotNegative = 0.0
    """L2 penalty, added to the gradient."""
    dampening: NotNegative = 0.0
    """The new gradient enters the velocity with weight 1 - dampening."""
    nesterov: bool = False
    """Nesterov's momentum."""

    @model_validator(mode="after")
    def _nesterov_fits(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise wrong("true needs a momentum", remedy='add "momentum": 0.9, say', key="nesterov")
        if self.nesterov and self.dampening != 0:
            raise wrong("true does not go with dampening", remedy='remove "dampening"', key="nesterov")
        return self


class SGD(Momentum):
    """Stochastic gradient descent, with momentum."""

    type: Annotated[str, OneOf("optimizer", "SGD")]

    def build(self, parameters: Iterable[torch.nn.Parameter], scaled: bool = False) -> torch.optim.Optimizer:
        import torch

        return _build(
            torch.optim.SGD,
            parameters,
            # A first update that is left out would leave the fused kernel's velocity as the memory was.
            () if scaled and self.momentum else ("cpu", "cuda"),
            lr=self.learning_rate,
            momentum=self.momentum,
            dampening=self.dampening,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


class Adagrad(OptimizerSection):
    """Steps over the root of the sum of squared gradients (Duchi, Hazan, Singer, JMLR 12 (2011) 2121)."""

    type: Annotated[str, OneOf("optimizer", "Adagrad")]
    lr_decay: NotNegative = 0.0
    """The learning rate of update k is divided by 1 + (k - 1) * lr_decay."""
    weight_decay: NotNegative = 0.0
    """L2 penalty, added to the gradient."""

    def build(self, parameters: Iterable[torch.nn.Parameter], scaled: bool = False) -> torch.optim.Optimizer:
        import torch

        return _build(
            torch.optim.Adagrad,
            parameters,
            ("cpu",),
            lr=self.learning_rate,
            lr_decay=self.lr_decay,
            weight_decay=self.weight_decay,
        )


class Moments(OptimizerSection):
    """The keys of Adam, and of what is made of it."""

    beta1: Decay = 0.9
    """The weight of the old mean of the gradient."""
    beta2: Decay = 0.999
    """The weight of the old mean of the squared gradient."""
    weight_decay: NotNegative = 0.0
    """Adam: L2 penalty, added to the gradient. AdamW: taken off the weights, times the learning rate."""
    eps: NotNegative = 1e-8
    """Added to the denominator."""
    amsgrad: bool = False
    """Divide by the greatest mean of the squared gradient so far (Reddi, Kale, Kumar, ICLR 2018)."""

    def _arguments(self) -> dict[str, Any]:
        return {
            "lr": self.learning_rate,
            "betas": (self.beta1, self.beta2),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "amsgrad": self.amsgrad,
        }


class Adam(Moments):
    """Running means of the gradient and of its square (Kingma, Ba, arXiv:1412.6980)."""

    type: Annotated[str, OneOf("optimizer", "Adam")]

    def build(self, parameters: Iterable[torch.nn.Parameter], scaled: bool = False) -> torch.optim.Optimizer:
        import torch

        return _build(torch.optim.Adam, parameters, ("cpu", "cuda"), **self._arguments())


class AdamW(Moments):
    """Adam with a weight decay of its own (Loshchilov, Hutter, arXiv:1711.05101)."""

    type: Annotated[str, OneOf("optimizer", "AdamW")]

    def build(self, parameters: Iterable[torch.nn.Parameter], scaled: bool = False) -> torch.optim.Optimizer:
        import torch

        return _build(torch.optim.AdamW, parameters, ("cpu", "cuda"), **self._arguments())


class RMSprop(OptimizerSection):
    """Steps over the root mean square of recent gradients (Hinton, Neural Networks for Machine Learning, lecture 6;
    centered: Graves, arXiv:1308.0850)."""

    type: Annotated[str, OneOf("optimizer", "RMSprop")]
    momentum: NotNegative = 0.0
    """The weight of the old velocity."""
    alpha: Decay = 0.99
    """The weight of the old mean of the squared gradient."""
    eps: NotNegative = 1e-8
    """Added to the denominator."""
    centered: bool = False
    """Divide by the gradient's standard deviation instead of its root mean square."""
    weight_decay: NotNegative = 0.0
    """L2 penalty, added to the gradient."""

    def build(self, parameters: Iterable[torch.nn.Parameter], scaled: bool = False) -> torch.optim.Optimizer:
        import torch

        return _build(
            torch.optim.RMSprop,
            parameters,
            (),
            lr=self.learning_rate,
            alpha=self.alpha,
            eps=self.eps,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            centered=self.centered,
        )


def _build(
    optimizer: type[torch.optim.Optimizer],
    parameters: Iterable[torch.nn.Parameter],
    fused_on: tuple[str, ...],
    **arguments: Any,
) -> torch.optim.Optimizer:
    """`fused_on`: the devices that torch 2.6 and later have a fused kernel for."""
    weights = trainable(parameters)
    if all(weight.device.type in fused_on and weight.is_floating_point() for weight in weights):
        arguments["fused"] = True
    return uncompiled(optimizer)(weights, **arguments)
