"""Loss and gradient of a batch of volumes, logits of 2 x 5 x 96 x 96 x 96 against class indices: seconds and memory.

Ours are the functions that `loss` of a run file becomes; the baselines are monai's and kornia's. kornia's Dice and
Lovasz take images: they get the volumes as images of 96 x 9216 pixels, and its Lovasz is one of each image.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from measure import Row, compare, interleaved, main
from rml_core.config.section import parse
from rml_core.config.target import Target
from rml_core.loss import LOSSES, Fitted

BATCH, CLASSES, SIZE, BOUND = 2, 5, 96, 1.0

Loss = Callable[[Tensor, Tensor], Tensor]


def ours(size: int, **keys: Any) -> Loss:
    section = parse(LOSSES[keys["function"]], keys, "loss")
    return section.build(Fitted("logits"), (CLASSES, *[size] * 3), Target("mask", (size,) * 3))


def monai_dice() -> Loss:
    from monai.losses import DiceLoss

    loss = DiceLoss(softmax=True, to_onehot_y=True, batch=True, smooth_nr=1e-6, smooth_dr=1e-6)
    return lambda x, t: loss(x, t.unsqueeze(1))


def monai_focal() -> Loss:
    from monai.losses import FocalLoss

    loss = FocalLoss(use_softmax=True, to_onehot_y=True)
    # monai's mean is over classes too.
    return lambda x, t: CLASSES * loss(x, t.unsqueeze(1))


def kornia_focal() -> Loss:
    from kornia.losses import focal_loss

    return lambda x, t: CLASSES * focal_loss(x, t, alpha=None, gamma=2.0, reduction="mean")


def kornia_dice() -> Loss:
    from kornia.losses import dice_loss

    return lambda x, t: dice_loss(x.flatten(3), t.flatten(2), average="macro", eps=1e-6)


def kornia_lovasz() -> Loss:
    from kornia.losses import lovasz_softmax_loss

    return lambda x, t: lovasz_softmax_loss(x.flatten(3), t.flatten(2))


# The library, what makes its loss, and the keys of ours.
SIDES: Mapping[str, tuple[Callable[[], Loss], dict[str, Any]]] = {
    "Dice, monai": (monai_dice, {"function": "Dice"}),
    "Dice, kornia": (kornia_dice, {"function": "Dice"}),
    "Focal, monai": (monai_focal, {"function": "Focal"}),
    "Focal, kornia": (kornia_focal, {"function": "Focal"}),
    "Lovasz, kornia": (kornia_lovasz, {"function": "Lovasz", "per_image": True}),
    "Lovasz of the batch, kornia": (kornia_lovasz, {"function": "Lovasz"}),
}


def batch(size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, CLASSES, *[size] * 3, generator=generator)
    return x.requires_grad_(), torch.randint(CLASSES, (BATCH, *[size] * 3), generator=generator)


def seconds(loss: Loss, x: Tensor, t: Tensor) -> float:
    x.grad = None
    began = time.perf_counter()
    loss(x, t).backward()
    return time.perf_counter() - began


def side(name: str, product: bool, size: int) -> Loss:
    theirs, keys = SIDES[name]
    return ours(size, **keys) if product else theirs()


def megabytes(loss: Loss, x: Tensor, t: Tensor) -> float:
    """The most that one loss and its gradient hold, beyond what was held before. Linux and glibc only."""
    x.grad = None
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    loss(x, t).backward()
    return held("VmHWM") - before


def held(what: str) -> float:
    """MB, of the process's status: VmRSS now, VmHWM the most until now."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def rows(rounds: int, quick: bool) -> list[Row]:
    size = 24 if quick else SIZE
    x, t = batch(size)
    measured = []
    for name in SIDES:
        sides = [side(name, product, size) for product in (True, False)]
        for loss in sides:
            seconds(loss, x, t)
        product, baseline = (partial(seconds, loss, x, t) for loss in sides)
        measured.append(compare(f"loss and gradient, {name}", product, baseline, BOUND, 3 * rounds))
        product, baseline = (partial(megabytes, loss, x, t) for loss in sides)
        measured.append(Row(f"memory, {name}", *interleaved(product, baseline, 1), BOUND, "MB"))
    return measured


if __name__ == "__main__":
    main(rows)
