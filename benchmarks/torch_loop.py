"""The baseline: the plain torch training loop, with the loss and the gradient norm of each batch in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.nn.utils import get_total_norm


def train(
    network: nn.Module, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]], epochs: int, rate: float, log: Path
) -> None:
    """Adam on the negative log-likelihood over `epochs` calls of `batches`.

    The log has a line a batch, `epoch batch time_s loss grad_norm`, as rml's has.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    network.train()
    began = time.perf_counter()
    with log.open("w") as lines:
        for epoch in range(1, epochs + 1):
            for batch, (x, t) in enumerate(batches(), start=1):
                optimizer.zero_grad()
                loss = nll_loss(network(x), t)
                loss.backward()
                norm = get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
                optimizer.step()
                seconds = time.perf_counter() - began
                lines.write(f"{epoch} {batch} {seconds:.6f} {loss.item():.8g} {norm.item():.8g}\n")


def in_memory(x: Tensor, t: Tensor, batch_size: int) -> Callable[[], Iterable[tuple[Tensor, Tensor]]]:
    """Batches of tensors in memory, in a new random order each epoch."""

    def batches() -> Iterable[tuple[Tensor, Tensor]]:
        for chosen in torch.randperm(len(x)).split(batch_size):
            yield x[chosen], t[chosen]

    return batches
