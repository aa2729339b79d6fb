"""What a verbose scheduler says."""

import pytest

from rml_core.config.section import parse
from rml_core.optimizer.torch_native import SGD


@pytest.mark.parametrize(
    ("scheduler", "epoch", "said"),
    [
        ({"type": "Step", "gamma": 0.1, "step_size": 2, "verbose": True}, 3, "epoch 3: learning rate 0.5 -> 0.05"),
        ({"type": "Step", "gamma": 0.1, "step_size": 2, "verbose": True}, 2, ""),
        ({"type": "Step", "gamma": 0.1, "step_size": 2}, 3, ""),
        ({"type": "Exponential", "gamma": 0.5, "verbose": True}, 1, ""),
        (None, 2, ""),
    ],
)
def test_each_change_of_the_rate_is_said(scheduler: object, epoch: int, said: str):
    section = parse(SGD, {"type": "SGD", "learning_rate": 0.5, "lr_scheduler": scheduler}, "optimizer")
    assert section.change_before(epoch) == said
