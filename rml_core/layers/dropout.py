"""Dropout of elements, and of whole channels."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from rml_core.config.names import wrong
from rml_core.config.problem import shown
from rml_core.layers.section import ChannelsLast, LayerSection, Misfit, Run, Shape, say


def _noise(value: object) -> object:
    if value is None:
        return None
    sizes = value if isinstance(value, list | tuple) else [value]
    if not all(size is None or (type(size) is int and size > 0) for size in sizes):
        raise wrong(f"{shown(value)} is not a shape", "[batch, sizes ..., channels], null for the input's sizes")
    return tuple(sizes)


class Dropout(LayerSection):
    """Sets elements to 0 at random while training, and scales up the others."""

    modal = True

    rate: float = Field(ge=0, le=1, examples=[0.5])
    """The fraction that is set to 0."""
    noise_shape: Annotated[tuple[int | None, ...] | None, BeforeValidator(_noise)] = None
    """[batch, sizes ..., channels]: along an axis of size 1 all elements are set to 0 together; null: the input's
    size."""
    seed: Any = None

    @property
    def random(self) -> bool:
        return self.rate > 0

    def check(self, shapes: tuple[Shape, ...]) -> None:
        super().check(shapes)
        noise = self.noise_shape
        sizes = (None, *shapes[0])
        if noise is not None and (
            len(noise) != len(sizes) or any(a not in (None, 1, b) for a, b in zip(noise, sizes, strict=True))
        ):
            raise Misfit(f"its noise_shape {say(noise)} does not fit its input {say(sizes)}, the batch included")

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import dropout

        if not self.random:
            return None
        noise = self.noise_shape
        if noise is None:
            return dropout.Dropout(self.rate)
        # Channels first, as torch has them.
        one = tuple(size == 1 for size in noise)
        return dropout.DropoutTogether(self.rate, (one[0], one[-1], *one[1:-1]) if len(one) > 1 else one)


class _SpatialDropout(Dropout):
    """Dropout of whole channels."""

    data_format: ChannelsLast = None

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import dropout

        assert self.rank is not None
        return dropout.DropoutTogether(self.rate, (False, False, *(True,) * self.rank)) if self.random else None


class SpatialDropout1D(_SpatialDropout):
    rank = 1


class SpatialDropout2D(_SpatialDropout):
    rank = 2


class SpatialDropout3D(_SpatialDropout):
    rank = 3


class StochasticDepth(LayerSection):
    """Leaves out whole samples at random while training, and scales up the others (Huang et al., arXiv:1603.09382)."""

    modal = True

    drop_path_rate: float = Field(ge=0, le=1, examples=[0.1])
    """The fraction of samples that is left out."""

    @property
    def random(self) -> bool:
        return self.drop_path_rate > 0

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import dropout

        together = (False, *(True,) * len(shapes[0]))
        return dropout.DropoutTogether(self.drop_path_rate, together) if self.random else None
