"""What a sample's target is, as the sections speak of it to each other."""

from __future__ import annotations

from dataclasses import dataclass

# The class index of pixels that carry no weight: a mask's `ignore_index`, what a rotation has filled, padding.
IGNORED = -1


@dataclass(frozen=True)
class Target:
    """`labels`: a class index a sample, int64 (N,). `mask`: a class index a pixel or voxel, int64 (N, *spatial),
    `IGNORED` where it carries no weight. `values`: float (N, *shape). `shape` is without the batch, channels first;
    None where the data decides later. `classes`: how many there are, None where the network decides."""

    kind: str
    shape: tuple[int | None, ...]
    classes: int | None = None
