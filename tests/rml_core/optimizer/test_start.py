"""What making and using an optimizer loads."""

import subprocess
import sys


def test_an_optimizer_does_not_load_the_compiler():
    program = """
import sys, torch
from rml_core.optimizer.torch_native import SGD, Adagrad, Adam, AdamW, RMSprop
for kind in (SGD, Adagrad, Adam, AdamW, RMSprop):
    section = kind(type=kind.__name__)
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
