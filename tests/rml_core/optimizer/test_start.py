"""What making and using an optimizer loads."""

import subprocess
import sys


def test_an_optimizer_does_not_load_the_compiler():
    program = """
import sys, torch
from rml_core.optimizer import OPTIMIZERS
for name, kind in OPTIMIZERS.items():
    section = kind(type=name)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = section.build([weight])
    for _ in range(2):
        (weight**2).sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert not weight.detach().equal(torch.ones(3)), section.type
print("torch._dynamo" in sys.modules)
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == "False\n"
