"""What `startup.py` compares with: the first batch of `data_samples/digits.json`, all of its images, in bare torch.

Reads the PNG files, builds the network, makes one Adam step, prints the loss and the gradient norm.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

DIGITS = Path(__file__).parents[1] / "data_samples" / "digits" / "train"

paths = sorted(DIGITS.glob("*/*.png"))
images = np.stack([cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths])
x = torch.from_numpy(images[:, None].astype(np.float32) / 255)
t = torch.tensor([int(path.parent.name) for path in paths])
order = torch.randperm(len(x))

network = nn.Sequential(
    nn.Conv2d(1, 32, 3, padding=1),
    nn.ReLU(),
    nn.BatchNorm2d(32, eps=1e-3),
    nn.Conv2d(32, 32, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding=1),
    nn.ReLU(),
    nn.BatchNorm2d(64, eps=1e-3),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.3),
    nn.Linear(256, 64),
    nn.ReLU(),
    nn.Linear(64, 10),
    nn.LogSoftmax(dim=1),
)
for layer in network:
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)

optimizer = torch.optim.Adam(network.parameters(), lr=0.002)
loss = nn.functional.nll_loss(network(x[order]), t[order])
loss.backward()
norm = nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
optimizer.step()
print(1, 1, loss.item(), norm.item())
