"""A batch in pieces, so that what several operations over it make on the way stays small.

What such a function needs for its gradient it computes again, piece by piece: of a volume nothing is kept but the
network's output and, at the end, its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Pixels of a piece. Smaller ones stay in a cache; larger ones have their threads wait for each other less often, which
# counts where other programs want the processors too.
PIXELS = 1 << 17

Place = tuple[slice, slice]


def flat(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, *spatial) and (N, *spatial) as (N, C, M) and (N, M); views, also where the channels are last in memory."""
    return output.reshape(*output.shape[:2], -1), target.reshape(len(target), -1)


def pieces(target: Tensor) -> Iterator[Place]:
    """Places of target (N, M): some samples whole, or a part of one. A GPU gets all at once."""
    samples, pixels = target.shape
    whole = target.device.type != "cpu"
    rows = samples if whole else max(1, PIXELS // max(pixels, 1))
    columns = pixels if whole else min(pixels, PIXELS)
    for first in range(0, samples, max(rows, 1)):
        for start in range(0, pixels, max(columns, 1)):
            yield slice(first, first + rows), slice(start, start + columns)


def taken(output: Tensor, place: Place) -> Tensor:
    """The piece of output (N, C, M), half precision as float32."""
    piece = output[place[0], :, place[1]]
    return piece.to(torch.promote_types(piece.dtype, torch.float32))


def indices(like: Tensor, channels: int, ignored: int | None) -> Tensor:
    """The class of each channel (1, channels, 1), one channel being the second of two classes, in `like`'s type (wide):
    what no target is where it is `ignored`."""
    first = 1 if channels == 1 else 0
    kind = torch.promote_types(like.dtype, torch.float32)
    classes = torch.arange(first, first + channels, device=like.device, dtype=kind).view(1, channels, 1)
    return classes if ignored is None else classes.masked_fill(classes == ignored, -2)


def one_or_zero(target: Tensor, classes: Tensor) -> Tensor:
    """target (N, M) as numbers (N, C, M): 1 in the channel of its class. Products with them are faster than choices
    by booleans, whose branches no processor foresees."""
    shape = (len(target), classes.shape[1], target.shape[1])
    return torch.eq(target.to(classes.dtype).unsqueeze(1), classes, out=classes.new_empty(shape))


def in_pieces(gradient: Callable[..., Tensor], output: Tensor, *others: Tensor) -> Tensor:
    """`gradient` of output (N, C, M) and others (N, M), like output; in one piece where it is differentiated again."""
    if torch.is_grad_enabled():
        return gradient(output, *others)
    result = torch.empty_like(output)
    for place in pieces(others[0]):
        result[place[0], :, place[1]] = gradient(taken(output, place), *(other[place] for other in others))
    return result


# Looking at a number costs nothing on a CPU; on a GPU it would make the host wait for everything that is under way.


def seen_all(flags: Tensor) -> bool:
    """Whether all are true, where the host can see that; else False."""
    return flags.device.type == "cpu" and bool(flags.all())


def seen_ignored(target: Tensor, ignored: int | None) -> int | None:
    """`ignored`; None where the host can see that it does not occur."""
    return None if ignored is None or seen_all(target != ignored) else ignored
