"""Dropout of elements, and of whole channels."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rml_core.layers.section import ChannelsLast, LayerSection, Null, Run, Shape


class Dropout(LayerSection):
    """Sets elements to 0 at random while training, and scales up the others."""

    rate: float = Field(ge=0, le=1, examples=[0.5])
    """The fraction that is set to 0."""
    noise_shape: Null = None
    seed: Any = None

    @property
    def random(self) -> bool:
        return self.rate > 0

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import dropout

        return dropout.dropout(self.rate) if self.random else None


class _SpatialDropout(Dropout):
    """Dropout of whole channels."""

    data_format: ChannelsLast = None

    def module(self, shapes: tuple[Shape, ...], keras_version: int) -> Run | None:
        from rml_core.layers.modules import dropout

        assert self.rank is not None
        return dropout.spatial_dropout(self.rate, self.rank) if self.random else None


class SpatialDropout1D(_SpatialDropout):
    rank = 1


class SpatialDropout2D(_SpatialDropout):
    rank = 2


class SpatialDropout3D(_SpatialDropout):
    rank = 3
